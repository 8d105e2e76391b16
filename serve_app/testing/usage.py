"""`MemoryUsageStore`: the twin of `SqlUsageStore` in memory."""

from collections.abc import Callable, Iterable

from serve_app.database.usage import day_of, month_of
from serve_app.jobs.protocol import Usage
from serve_app.models.revision import asked_id
from serve_app.types import Cost, Job

__all__ = ["MemoryUsageStore"]

_KEYS = {"day", "key_id", "model_id"}


class MemoryUsageStore:
    """Implements `jobs.protocol.UsageStore`; `MemoryJobStore` adds to it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str, str], Usage] = {}

    def add(self, job: Job) -> None:
        """Count a job that was settled just now."""
        day, result = day_of(self._clock()), job.result
        key_id, model_id = job.request.key_id, asked_id(job.request.spec.model_id)
        end = "succeeded" if result is not None else str(job.state)
        cost = Cost() if result is None else result.cost
        pictures = 0 if result is None else len(result.keys)
        values = {**cost.model_dump(), "pictures": pictures, end: 1}
        new = Usage.model_validate({"day": day, "key_id": key_id, "model_id": model_id, **values})
        known = [one for one in [self._rows.get((day, key_id, model_id))] if one]
        self._rows[day, key_id, model_id] = _sum([new, *known], new)

    def pictures(self, key_id: str) -> int:
        """Count the pictures of a key in this month."""
        month = month_of(self._clock())
        rows = [row for key, row in self._rows.items() if key[0].startswith(month)]
        return sum(row.pictures for row in rows if row.key_id == key_id)

    async def usage(
        self, month: str, limit: int | None = None, after: tuple[str, str, str] | None = None
    ) -> list[Usage]:
        """List what a month cost; see the protocol."""
        rows = [key for key in sorted(self._rows) if key[0][:7] == month]
        return [self._rows[key] for key in rows if after is None or key > after][:limit]

    async def by_model(self, month: str) -> dict[str, Usage]:
        """Add up what each model cost in a month; see the protocol."""
        rows = await self.usage(month)
        return {
            model_id: _sum(
                [row for row in rows if row.model_id == model_id],
                Usage(day=month, key_id="", model_id=model_id),
            )
            for model_id in {row.model_id for row in rows}
        }

    async def this_month(self) -> str:
        """Return the month that it is; see the protocol."""
        return month_of(self._clock())


def _sum(rows: Iterable[Usage], named: Usage) -> Usage:
    dumps = [row.model_dump(exclude=_KEYS) for row in rows]
    return named.model_copy(
        update={name: sum(values[name] for values in dumps) for name in dumps[0]}
    )
