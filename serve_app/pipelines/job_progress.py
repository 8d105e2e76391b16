"""`JobProgress`: what a painter knows of a job while it is painted."""

from dataclasses import dataclass, field

from serve_app.engine.request import Progress, Spent
from serve_app.fairness import Stake
from serve_app.pipelines.previews import Preview
from serve_app.types import Cost, Sight

__all__ = ["JobProgress"]


@dataclass(slots=True)
class JobProgress:
    """A job at work. progress: of its samples, windows that are done or to come too."""

    stake: Stake
    num_samples: int = 1
    progress: list[Progress] = field(default_factory=list)
    preview: Preview | None = None
    spent: list[Spent] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the steps that are done."""
        return sum(one.share for one in self.progress) / max(1, len(self.progress))

    def sight(self, newest: int | None) -> Sight:
        """Return how far all windows are, as the mean of all samples; the first one is shown."""
        if not self.progress:
            return Sight(0, 0)
        done = sum(one.done for one in self.progress) // self.num_samples
        steps = max(one.total for one in self.progress) * len(self.progress) // self.num_samples
        if newest is None or self.preview is None:
            return Sight(done, steps)
        step, image = self.preview.ask()
        return Sight(done, steps, image if step > newest else b"", step)

    def cost(self) -> Cost:
        """Sum up what it cost so far."""
        return Cost(
            row_steps=sum(one.row_steps for one in self.spent),
            device_s=sum(one.device_s for one in self.spent),
        )
