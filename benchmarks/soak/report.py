"""What the soak says at its end, as Markdown."""

import collections
import statistics
from collections.abc import Iterator, Mapping

from benchmarks.soak.ordinary import CALLS, Times

__all__ = ["FLOOR_S", "limits_s", "markdown", "within"]

FLOOR_S = 0.25  # below this nobody waits, and a small machine's noise is larger than the latency


def limits_s(quiet: Times) -> dict[str, float]:
    """Return the latency that counts as undisturbed: twice the quiet p95, at least `FLOOR_S`."""
    return {name: max(FLOOR_S, 2 * _p95(quiet.seconds[name])) for name in CALLS}


def within(times: Times, limits: Mapping[str, float], name: str) -> tuple[int, int]:
    """Count the calls of a kind within its limit, and all; one that failed is not within."""
    seconds = times.seconds[name]
    return sum(value <= limits[name] for value in seconds), len(seconds) + len(times.failures[name])


def markdown(quiet: Times, attacked: Times, answers: Mapping[str, Mapping[str, int]]) -> str:
    """Write the tables."""
    return "\n".join([*_ordinary(quiet, attacked), "", *_hostile(answers)])


def _ordinary(quiet: Times, attacked: Times) -> Iterator[str]:
    limits = limits_s(quiet)
    yield f"Limit: twice the quiet p95, {FLOOR_S} s at least. Seconds.\n"
    yield "| call | n | quiet: median, p95 | under attack: median, p95, worst | limit | within |"
    yield "|---|---|---|---|---|---|"
    good = total = 0
    for name in CALLS:
        part, number = within(attacked, limits, name)
        good, total = good + part, total + number
        calm, stormy = quiet.seconds[name], attacked.seconds[name]
        yield (
            f"| {name} | {number} | {_median(calm):.3f}, {_p95(calm):.3f} "
            f"| {_median(stormy):.3f}, {_p95(stormy):.3f}, {max(stormy, default=float('nan')):.3f} "
            f"| {limits[name]:.2f} | {_share(part, number)} |"
        )
    yield f"| **all** | {total} | | | | **{_share(good, total)}** |"
    yield f"\nSent late by this process itself: at most {attacked.late_s:.3f} s."
    for name, texts in attacked.failures.items():
        for text, number in collections.Counter(texts).most_common(5):
            yield f"- {name} failed {number} times: {text}"


def _hostile(answers: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield "| hostile kind | answers |"
    yield "|---|---|"
    broken = 0
    for name, told in sorted(answers.items()):
        yield f"| {name} | {', '.join(f'{text}: {count}' for text, count in told.items())} |"
        broken += sum(count for text, count in told.items() if _is_broken(text))
    yield f"\nAnswers of 5xx other than 503: {broken} (right is 0)."


def _is_broken(told: str) -> bool:
    return told.startswith("5") and not told.startswith("503")


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def _p95(values: list[float]) -> float:
    """The 95th percentile by nearest rank; nothing measured has none."""
    return sorted(values)[-(-len(values) * 95 // 100) - 1] if values else float("nan")


def _share(part: int, number: int) -> str:
    return f"{100 * part / number:.1f} %" if number else "none"
