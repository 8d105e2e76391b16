"""The retry policy."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from serve_app.webhooks.protocol import DeliveryState, Reply
from serve_app.webhooks.retry import GIVE_UP, SCHEDULE_S, judge

NOW_S = 1_700_000_000.0
HOUR_S = 3600


def delay_s(reply, attempts=1, spread=0.5):
    verdict = judge(reply, attempts, NOW_S, spread)
    assert verdict.state is DeliveryState.PENDING
    return verdict.delay_s


def test_schedule_is_that_of_the_specification_with_two_more_attempts_at_its_begin():
    assert sum(SCHEDULE_S) == 75 * HOUR_S + 35 * 60 + 5 + 20 + 60
    assert [after for after in SCHEDULE_S if after not in (20, 60)] == [
        *(0, 5, 5 * 60, 30 * 60, 2 * HOUR_S, 5 * HOUR_S),
        *(10 * HOUR_S, 14 * HOUR_S, 20 * HOUR_S, 24 * HOUR_S),
    ]


@pytest.mark.parametrize("down_s", [3, 15, 60])
def test_receiver_that_was_down_for_a_while_hears_soon_after(down_s):
    """Even with the most jitter it waits half a minute or half the outage, whichever is more."""
    attempts_s = [sum(SCHEDULE_S[: number + 1]) * 1.2 for number in range(len(SCHEDULE_S))]
    heard_s = next(after for after in attempts_s if after >= down_s)
    assert heard_s - down_s <= max(30, down_s / 2 + 15)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status):
    assert judge(Reply(status), 10, NOW_S, 0.5).state is DeliveryState.DELIVERED


@pytest.mark.parametrize("reply", [None, *map(Reply, (199, 301, 302, 307, 400, 404, 429, 500))])
def test_anything_else_is_tried_again_on_schedule(reply):
    assert [delay_s(reply, attempts) for attempts in range(1, 12)] == pytest.approx(SCHEDULE_S[1:])
    assert judge(reply, 12, NOW_S, 0.5) == GIVE_UP


def test_410_is_given_up_at_once():
    assert judge(Reply(410), 1, NOW_S, 0.5) == GIVE_UP


@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_jitter_spreads_a_delay_by_a_fifth(spread, share):
    assert delay_s(None, 5, spread) == pytest.approx(1800 * share)


@pytest.mark.parametrize(
    ("header", "wanted_s"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("1", 5),  # never sooner than the schedule
        ("0", 5),
        ("999999999", 24 * HOUR_S),  # never later than its longest step
        ("9" * 5000, 5),
        ("-5", 5),
        ("soon", 5),
        ("", 5),
        ("٣", 5),
        (format_datetime(datetime.fromtimestamp(NOW_S + 90, tz=UTC), usegmt=True), 90),
        (format_datetime(datetime.fromtimestamp(NOW_S - 90, tz=UTC), usegmt=True), 5),
        ("Wed, 99 Nov 2026 99:99:99 GMT", 5),
    ],
    ids=range(13),
)
def test_retry_after_is_honoured_within_bounds(header, wanted_s):
    assert delay_s(Reply(503, header)) == pytest.approx(wanted_s)


def test_own_schedule_ends_after_its_last_attempt():
    schedule_s = (0.0, 2.0)
    verdict = judge(Reply(500), 1, NOW_S, 0.5, schedule_s)
    assert (verdict.state, verdict.delay_s) == (DeliveryState.PENDING, pytest.approx(2.0))
    assert judge(Reply(500), 2, NOW_S, 0.5, schedule_s) == GIVE_UP
