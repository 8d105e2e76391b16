"""Counters of usage begin at 0 with the process and lose nothing when a month ends."""

from serve_app.jobs.growth import Growth
from serve_app.jobs.protocol import Usage

COUNTS = ("succeeded", "failed", "cancelled", "pictures", "row_steps", "stored_bytes")


def sums(month, **pictures):
    return {
        model: Usage(day=month, key_id="", model_id=model, pictures=count, device_s=count / 2)
        for model, count in pictures.items()
    }


def seen(growth, month, **pictures):
    grown = growth.since(month, sums(month, **pictures))
    return {model: (row.pictures, row.device_s) for model, row in grown.items()}


def test_each_sum_grows_by_itself():
    growth = Growth()
    for times in (1, 3):
        counts = {name: times * number for number, name in enumerate(COUNTS, 1)}
        row = Usage(day="2026-11", key_id="", model_id="a", device_s=times / 4, **counts)
        grown = growth.since("2026-11", {"a": row})["a"]
    assert [getattr(grown, name) for name in COUNTS] == [2, 4, 6, 8, 10, 12]
    assert (grown.device_s, grown.model_id) == (0.5, "a")


def test_usage_of_nothing_is_zero():
    nothing = Usage(day="2026-11-29", key_id="k", model_id="m")
    assert [getattr(nothing, name) for name in (*COUNTS, "device_s")] == [0] * 7


def test_what_was_before_the_first_look_is_not_counted():
    growth = Growth()
    assert seen(growth, "2026-11", a=100) == {"a": (0, 0)}
    assert seen(growth, "2026-11", a=103) == {"a": (3, 1.5)}
    assert seen(growth, "2026-11", a=103, b=2) == {"a": (3, 1.5), "b": (2, 1)}


def test_next_month_goes_on():
    growth = Growth()
    seen(growth, "2026-11", a=100)
    seen(growth, "2026-11", a=110)
    assert seen(growth, "2026-12", a=4) == {"a": (14, 7)}
    assert seen(growth, "2026-12", a=6) == {"a": (16, 8)}


def test_model_that_nobody_used_this_month_stays():
    growth = Growth()
    seen(growth, "2026-11", a=1)
    seen(growth, "2026-11", a=3)
    assert seen(growth, "2026-12") == {"a": (2, 1)}
