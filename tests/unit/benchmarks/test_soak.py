"""The parts of the soak that need no service: its arithmetic, and that its pictures are hostile."""

import io

from PIL import Image

from benchmarks.soak import pictures
from benchmarks.soak.ordinary import CALLS, Times
from benchmarks.soak.report import FLOOR_S, limits_s, markdown, within


def test_limits_are_twice_the_quiet_p95_but_not_below_the_floor():
    quiet = Times()
    quiet.seconds["live"] = [0.01] * 100
    quiet.seconds["text2img"] = [0.2] * 94 + [0.5] * 6
    limits = limits_s(quiet)
    assert limits["live"] == FLOOR_S
    assert limits["text2img"] == 1.0


def test_a_call_that_failed_is_not_within():
    times = Times()
    times.seconds["live"] = [0.1, 0.2, 0.3]
    times.failures["live"] = ["ReadTimeout"]
    assert within(times, {"live": 0.2}, "live") == (2, 4)


def test_the_report_counts_all_calls_together_and_broken_answers():
    quiet, attacked = Times(), Times()
    for name in CALLS:
        quiet.seconds[name] = attacked.seconds[name] = [0.1]
    attacked.failures["live"] = ["ReadTimeout"]
    text = markdown(quiet, attacked, {"odd": {"500": 2, "503 error": 3, "200 success": 1}})
    assert f"| **all** | {len(CALLS) + 1} | | | | **80.0 %** |" in text
    assert "other than 503: 2 " in text


def test_the_pictures_are_small_and_say_that_they_are_large():
    many = pictures.scans(1000, 8192, 3906)
    canvas = pictures.webp(8000, 4000)
    assert many.count(b"\xff\xda") > 1000
    assert Image.open(io.BytesIO(many)).size == (8192, 3906)
    assert Image.open(io.BytesIO(canvas)).size == (8000, 4000)
    assert len(many) < 50_000
    assert len(canvas) < 50
