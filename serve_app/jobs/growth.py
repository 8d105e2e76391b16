"""`Growth`: what was used since this process began to look, from sums of months that began before.

Counters of a process begin at 0: sums of the whole month would be a jump after each restart.
"""

from collections.abc import Mapping

from serve_app.jobs.protocol import Usage

__all__ = ["Growth"]

_NAMED = {"day", "key_id", "model_id"}


class Growth:
    """Sums per model since the first look."""

    def __init__(self) -> None:
        self._before: Mapping[str, Usage] | None = None
        self._month = ""
        self._grown: dict[str, Usage] = {}

    def since(self, month: str, sums: Mapping[str, Usage]) -> dict[str, Usage]:
        """Take the sums of a month by model; return what came since the first look, by model."""
        if self._before is None:
            self._before = sums
        elif month != self._month:
            self._before = {}
        self._month = month
        for model_id, now in sums.items():
            before = self._before.get(model_id) or _nothing(now)
            known = self._grown.get(model_id) or _nothing(now)
            self._grown[model_id] = _combine(known, now, before)
        self._before = sums
        return dict(self._grown)


def _nothing(usage: Usage) -> Usage:
    return Usage(day=usage.day, key_id=usage.key_id, model_id=usage.model_id)


def _combine(known: Usage, now: Usage, before: Usage) -> Usage:
    """Add to what is known how much the sum of the month has grown."""
    sums = (one.model_dump(exclude=_NAMED) for one in (known, now, before))
    known_sums, now_sums, before_sums = sums
    return known.model_copy(
        update={
            name: value + now_sums[name] - before_sums[name] for name, value in known_sums.items()
        }
    )
