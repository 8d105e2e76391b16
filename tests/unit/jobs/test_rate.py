"""Calls per minute and key."""

import time

import pytest

from serve_app import errors
from serve_app.jobs.rate import RateLimiter


@pytest.fixture
def clock(monkeypatch):
    """Time that a test moves; `limits` and the limiter read it by `time.time`."""
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


async def test_calls_beyond_the_rate_are_refused_with_the_time_to_wait(clock):
    rate = RateLimiter(3)
    for _ in range(3):
        await rate.count("a")
        clock[0] += 10
    with pytest.raises(errors.RateLimited) as caught:
        await rate.count("a")
    assert caught.value.retry_after_s == pytest.approx(30, abs=1.1)
    clock[0] += caught.value.retry_after_s + 1.1
    await rate.count("a")


async def test_refused_calls_do_not_count(clock):
    rate = RateLimiter(1)
    await rate.count("a")
    for _ in range(5):
        with pytest.raises(errors.RateLimited):
            await rate.count("a")
    clock[0] += 61
    await rate.count("a")


async def test_keys_are_counted_apart(clock):
    rate = RateLimiter(1)
    await rate.count("a")
    await rate.count("b")


async def test_check_refuses_like_a_count_and_counts_nothing(clock):
    rate = RateLimiter(2)
    for _ in range(5):
        await rate.check("a")
    for _ in range(2):
        await rate.count("a")
    for _ in range(2):
        with pytest.raises(errors.RateLimited) as caught:
            await rate.check("a")
    assert caught.value.retry_after_s == pytest.approx(60, abs=1.1)
    await rate.check("b")
    clock[0] += 61
    await rate.check("a")


async def test_time_to_wait_is_never_negative(clock, monkeypatch):
    rate = RateLimiter(1)
    await rate.count("a")
    ask = rate._limiter.get_window_stats

    async def ask_slowly(*given):
        stats = await ask(*given)
        clock[0] += 90
        return stats

    monkeypatch.setattr(rate._limiter, "get_window_stats", ask_slowly)
    with pytest.raises(errors.RateLimited) as caught:
        await rate.count("a")
    assert caught.value.retry_after_s == 0.0


async def test_no_rate_allows_any_number():
    rate = RateLimiter(0)
    for _ in range(1000):
        await rate.count("a")
        await rate.check("a")
