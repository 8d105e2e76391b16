"""Counters of usage begin at 0 with the process and lose nothing when a month ends."""

from serve_app.jobs.growth import Growth
from serve_app.jobs.protocol import Usage


def sums(month, **pictures):
    return {
        model: Usage(day=month, key_id="", model_id=model, pictures=count, device_s=count / 2)
        for model, count in pictures.items()
    }


def seen(growth, month, **pictures):
    grown = growth.since(month, sums(month, **pictures))
    return {model: (row.pictures, row.device_s) for model, row in grown.items()}


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
