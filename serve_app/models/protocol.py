"""`ModelStore`: what operators add at run time, and which weights the replicas should hold.

The store holds what is wanted, replicas reconcile themselves with it and report: no replica is ever
told twice, none misses a reload because it was starting or away. One contract suite holds for every
implementation. Every method raises `errors.JobStoreUnavailable` when the store does not answer.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from pydantic import AliasChoices, Field

from serve_app.models.canary import Canary, Scores
from serve_app.models.entry import Entry, ModelEntry
from serve_app.types import Frozen

__all__ = ["Desired", "ModelStore", "ReplicaPhase", "ReplicaReport"]


class Desired(Frozen):
    """The weights that every replica of a model should serve."""

    model_id: str
    weights_version: int = Field(default=0, ge=0, description="grows by one with each reload")
    revision: str | None = Field(
        default=None, description="of a hub source, as asked; None: what the entry names"
    )


class ReplicaPhase(StrEnum):
    """How a replica stands to the version of the weights that it reports."""

    LOADING = "loading"  # the one before, if any, still serves
    READY = "ready"  # it serves
    FAILED = "failed"  # it was refused; the one before, if any, still serves


class ReplicaReport(Frozen):
    """What one replica last said about one model."""

    model_id: str
    replica_id: str
    weights_version: int = Field(
        validation_alias=AliasChoices("weights_version", "generation"),
        serialization_alias="generation",  # on the wire, and in rows of all versions
        description="the one this is about",
    )
    phase: ReplicaPhase
    serving: int | None = Field(
        description="version of the weights that answers requests now; None: none does"
    )
    revision: str | None = Field(default=None, description="of the weights that serve, as asked")
    digest: str = Field(default="", description="of the weights that serve")
    load_s: float = Field(default=0.0, description="seconds that their load took")
    reason: str = Field(default="", description="why it failed, fit for the operator")
    reported_at: float = Field(default=0.0, description="seconds since the epoch, by the store")


class ModelStore(Protocol):
    """Run-time entries of the catalogue, wanted versions of weights, reports of replicas."""

    async def entries(self) -> list[Entry]:
        """List the run-time entries, in order of id."""
        ...

    async def version(self) -> int:
        """Return a number that grows with each change of entries and canaries; cheap."""
        ...

    async def put(self, entry: Entry) -> None:
        """Add an entry, or replace the run-time entry of the same id.

        A revision that was asked for by `advance` was one of the entry before, and is forgotten.
        """
        ...

    async def remove(self, entry_id: str) -> bool:
        """Remove a run-time entry, and its canary; False when there is none."""
        ...

    async def canaries(self) -> list[Canary]:
        """List the canaries, in order of their models' ids."""
        ...

    async def begin_canary(self, entry: ModelEntry, share: float) -> None:
        """Send a share of a model's calls, in per cent, to another entry of the same id.

        It takes the place of a canary that the model has.
        """
        ...

    async def share_canary(self, model_id: str, share: float) -> bool:
        """Change the share of a canary, which goes on; False: there is none."""
        ...

    async def promote_canary(self, model_id: str) -> bool:
        """Put the entry of a canary in place of the model's run-time entry; False: there is none.

        Open jobs of the canary go to the model.
        """
        ...

    async def end_canary(self, model_id: str) -> bool:
        """Remove a canary, whose open jobs go to the model; False: there is none."""
        ...

    async def scores(self, model_id: str, since: float) -> Scores:
        """Count what became of a model's jobs, and of its canary's, accepted since a time."""
        ...

    async def desired(self, model_ids: Sequence[str]) -> dict[str, Desired]:
        """Return what these models should serve; version 0 for those never reloaded."""
        ...

    async def advance(
        self, model_id: str, revision: str | None = None, mark: str | None = None
    ) -> Desired:
        """Want the next version of the weights; without a revision the one wanted before stays.

        mark: of what asks, where several say the same: nothing changes if the last mark was this.
        """
        ...

    async def report(self, report: ReplicaReport) -> None:
        """Keep what a replica says in place of what it said before about this model."""
        ...

    async def reports(self, model_id: str, max_age_s: float) -> list[ReplicaReport]:
        """List what the replicas of a model said within the last `max_age_s` seconds."""
        ...

    async def take_turn(self, model_id: str, owner: str, lease_s: float) -> bool:
        """Take or renew the right to be the one replica that reloads; False: another has it."""
        ...

    async def end_turn(self, model_id: str, owner: str) -> None:
        """Release the turn; does nothing if it is not ours."""
        ...
