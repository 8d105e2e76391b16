"""What the engine counts. Written on the engine thread; a snapshot can be taken from anywhere."""

import dataclasses
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Counters", "EngineSnapshot", "total"]

_WINDOW_S = 10.0  # over which rates are taken
_PICTURES_S = 60.0  # those of pictures, of which there may be few


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """State and totals of one engine; times in seconds, totals since the start.

    rows_per_forward: mean rows of recent denoiser forwards.
    steps_per_s: denoiser calls of all requests per second, recently.
    tick_s: mean duration of recent ticks.
    pictures_per_s: pictures made per second in the last minute.
    stage_s: time by stage: start (text encoding and inputs), forward by lane, switch (variants).
    row_caps: by "lane/size".
    compiled_shapes: of the denoiser, ready. compiled_forwards: that ran compiled.
    """

    waiting: int
    parked: int
    forwards: int
    rows: int
    succeeded: int
    failed: int
    cancelled: int
    out_of_memory: int
    switches: int
    rows_per_forward: float
    steps_per_s: float
    tick_s: float
    pictures_per_s: float
    stage_s: dict[str, float]
    row_caps: dict[str, int]
    compiled_shapes: int = 0
    compiled_forwards: int = 0

    @property
    def forward_s(self) -> float:
        """Time of all forwards, those of the VAE too."""
        return sum(
            seconds for stage, seconds in self.stage_s.items() if stage.startswith("forward")
        )

    @property
    def row_cap(self) -> int:
        """Largest cap that was measured; 1 before that."""
        return max(self.row_caps.values(), default=1)


@dataclass(slots=True)
class Counters:
    """Totals, and a short window for rates."""

    forwards: int = 0
    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    out_of_memory: int = 0
    switches: int = 0
    stage_s: dict[str, float] = field(default_factory=dict)
    _recent: deque[tuple[float, float, int, int]] = field(default_factory=deque)
    _made: deque[tuple[float, int]] = field(default_factory=deque)

    def spend(self, stage: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds

    def succeed(self, now: float, pictures: int) -> None:
        """Count pictures just made."""
        self.succeeded += pictures
        self._made.append((now, pictures))
        while self._made[0][0] < now - _PICTURES_S:
            self._made.popleft()

    def step(self, now: float, seconds: float, calls: int, rows: int) -> None:
        """Count one denoiser forward with the resumption of its requests."""
        self.forwards += 1
        self.rows += rows
        self._recent.append((now, seconds, calls, rows))
        while self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()

    def snapshot(
        self, now: float, waiting: int, parked: int, row_caps: dict[str, int]
    ) -> EngineSnapshot:
        """Freeze the counters together with the queue lengths."""
        recent = [entry for entry in self._recent.copy() if entry[0] >= now - _WINDOW_S]
        count = max(1, len(recent))
        made = sum(pictures for at, pictures in self._made.copy() if at >= now - _PICTURES_S)
        span = max(now - recent[0][0] + recent[0][1], 1e-6) if recent else 1.0
        return EngineSnapshot(
            waiting=waiting,
            parked=parked,
            forwards=self.forwards,
            rows=self.rows,
            succeeded=self.succeeded,
            failed=self.failed,
            cancelled=self.cancelled,
            out_of_memory=self.out_of_memory,
            switches=self.switches,
            rows_per_forward=sum(entry[3] for entry in recent) / count,
            steps_per_s=sum(entry[2] for entry in recent) / span,
            tick_s=sum(entry[1] for entry in recent) / count,
            pictures_per_s=made / _PICTURES_S,
            stage_s=dict(self.stage_s),
            row_caps=row_caps,
        )


_SUMMED = (
    "waiting",
    "parked",
    "forwards",
    "rows",
    "succeeded",
    "failed",
    "cancelled",
    "out_of_memory",
    "switches",
    "compiled_shapes",
    "compiled_forwards",
)


def total(now: EngineSnapshot, others: Sequence[EngineSnapshot]) -> EngineSnapshot:
    """Add what other engines of the same model hold and did; rates and row caps stay as they are.

    Totals may then never fall, although engines come and go.
    """
    everyone = (now, *others)
    stage_s: dict[str, float] = {}
    for snapshot in everyone:
        for stage, seconds in snapshot.stage_s.items():
            stage_s[stage] = stage_s.get(stage, 0.0) + seconds
    sums = {name: sum(getattr(snapshot, name) for snapshot in everyone) for name in _SUMMED}
    return dataclasses.replace(now, stage_s=stage_s, **sums)
