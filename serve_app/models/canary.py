"""`Canary`: another revision of a model, which a share of the model's calls goes to.

Inside, a canary goes by an id of its own, the model's with an ending that no entry's id can have.
So whatever is kept by model id (weights in memory, caches, run times, metrics of engines) is kept
apart. Clients, keys, the queue and what jobs cost know the model's id only.
"""

from pydantic import Field

from serve_app.models.entry import ModelEntry
from serve_app.models.revision import canary_id
from serve_app.types import Frozen

__all__ = ["WEIGHTS", "Canary", "Score", "Scores"]

WEIGHTS = frozenset(
    {
        "source",
        "sha256",
        "base_config",
        "base",
        "vae",
        "text_encoders",
        "variant",
        "prediction_type",
        "zero_snr",
        "timestep_spacing",
        "guidance_rescale",
        "dtype",
        "name",
        "description",
        "placement",
        "serve",
    }
)
"""Fields in which a canary may differ: requests are made complete by the model's own entry."""


class Canary(Frozen):
    """What an operator tries out.

    entry: as it would replace the model's; of its id.
    """

    entry: ModelEntry
    share: float = Field(ge=0, le=100, description="per cent of the model's calls")
    since: float = Field(description="seconds since the epoch, by the store")

    @property
    def painted(self) -> ModelEntry:
        """The entry as the Pool loads it."""
        return self.entry.model_copy(update={"id": canary_id(self.entry.id), "placement": "pool"})


class Score(Frozen):
    """What became of the jobs of one revision."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    run_s: float | None = Field(
        default=None, description="mean seconds from the start to the end of those that succeeded"
    )

    @property
    def error_rate(self) -> float | None:
        """Share of those that succeeded or failed; None: there are none."""
        ended = self.succeeded + self.failed
        return self.failed / ended if ended else None


class Scores(Frozen):
    """Both revisions of a model, for jobs accepted since the canary began."""

    model: Score = Score()
    canary: Score = Score()
