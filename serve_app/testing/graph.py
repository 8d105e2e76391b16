"""`FakeGraph`: the graph without deployments, for tests of what drives it."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from serve_app import errors
from serve_app.types import ImageSource, Job, JobResult, OutputPlan, Sight

__all__ = ["FakeGraph"]


class FakeGraph:
    """Answers after `duration_s`; `failures` are raised first, one per run."""

    def __init__(self, duration_s: float = 0.0, failures: Sequence[Exception] = ()) -> None:
        self.duration_s = duration_s
        self.failures = list(failures)
        self.runs: dict[int, int] = defaultdict(int)
        self.stopped: list[int] = []
        self.at_work: dict[int, float] = {}
        self.flags = False
        self.published: list[tuple[str, bytes, OutputPlan, bool]] = []
        self.load_left_s = 0.0
        self.notified: list[str] = []
        self.sights: dict[int, Sight] = {}
        self.looks: list[dict[int, int | None]] = []
        self.away: set[str] = set()

    async def run(self, job: Job) -> JobResult:
        """Take the next failure or succeed."""
        self.runs[job.id] += 1
        self.at_work[job.id] = 0.5
        try:
            await asyncio.sleep(self.duration_s)
        except asyncio.CancelledError:
            self.stopped.append(job.id)
            raise
        finally:
            del self.at_work[job.id]
        if self.failures:
            raise self.failures.pop(0)
        return JobResult(
            keys=job.request.output.keys,
            nsfw=(False,) * len(job.request.output.keys),
            generation_time_s=self.duration_s,
            load_s=self.load_left_s,
        )

    async def progress(self, model_id: str) -> dict[int, float]:  # noqa: ARG002  # one model only
        """Half done, all of them."""
        return dict(self.at_work)

    async def look(self, model_id: str, watched: Mapping[int, int | None]) -> dict[int, Sight]:  # noqa: ARG002  # one model only
        """Return those of `sights` that are watched."""
        self.looks.append(dict(watched))
        return {job_id: sight for job_id, sight in self.sights.items() if job_id in watched}

    async def notify_replicas(self, model_id: str) -> frozenset[str]:
        """Remember the model."""
        self.notified.append(model_id)
        return frozenset({"replica"})

    async def check(self, picture: ImageSource) -> bool:  # noqa: ARG002  # never looked at
        """Return `flags`."""
        return self.flags

    async def publish(self, field: str, data: bytes, plan: OutputPlan, *, crop: bool) -> None:
        """Take the next failure or remember what was asked for."""
        if self.failures:
            raise self.failures.pop(0)
        self.published.append((field, data, plan, crop))

    async def load_s(self, model_id: str) -> float:  # noqa: ARG002  # one model only
        """Return `load_left_s`."""
        return self.load_left_s

    async def check_safety_runs(self) -> None:
        """Raise where `away` names the check."""
        if "safety" in self.away:
            raise errors.SafetyCheckFailed()

    async def readiness(self, model_ids: Sequence[str]) -> dict[str, bool]:
        """All but those that are `away`."""
        return {model_id: model_id not in self.away for model_id in model_ids}
