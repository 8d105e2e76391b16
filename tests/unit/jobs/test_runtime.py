"""Run times of a server whose constant and linear part are known, with noise."""

import random

import numpy as np
import pytest

from serve_app.jobs.runtime import RunTime

SIZES = (0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
SERVERS = [(3.0, 0.1), (0.9, 0.08), (0.5, 0.5), (0.1, 1.0), (0.0, 1.0), (2.0, 0.0)]
ORDERS = {
    "small-then-large": [0.1, 0.3, 1.0, 0.3, 0.1, 3.0, 40.0, 10.0, 40.0, 3.0],
    "large-then-small": [40.0, 10.0, 40.0, 3.0, 10.0, 1.0, 0.3, 0.1, 1.0, 0.3],
    "mixed": [1.0, 40.0, 0.3, 10.0, 0.1, 3.0, 3.0, 0.1, 40.0, 1.0],
    "two-sizes": [0.1, 0.1, 40.0, 0.1, 0.1, 40.0, 0.1, 40.0, 40.0, 0.1],
}


class Server:
    """Takes `fixed_s + unit_s * work`, give or take a quarter."""

    def __init__(self, fixed_s, unit_s, seed=0):
        self.fixed_s, self.unit_s = fixed_s, unit_s
        self.random = random.Random(seed)

    def takes(self, work):
        return self.fixed_s + self.unit_s * work

    def run(self, work):
        return self.takes(work) * self.random.uniform(0.75, 1.25)


def learned(server, works, times=None):
    for work in works:
        if times is None:
            times = RunTime(work, server.run(work))
        else:
            times.observe(work, server.run(work))
    return times


def worst_factor(times, server, sizes=SIZES):
    ratios = [times.of(size) / server.takes(size) for size in sizes]
    return max(max(ratio, 1 / ratio) for ratio in ratios)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_ten_jobs_of_mixed_sizes_teach_every_size_within_a_factor_of_two(server, order):
    for seed in range(200):
        known = Server(*server, seed)
        assert worst_factor(learned(known, ORDERS[order]), known) < 2, seed


def test_job_of_four_seconds_after_small_ones_is_not_told_forty():
    server = Server(0.9, 0.08)
    small = learned(server, [0.1, 1.0, 0.3, 1.0, 0.1, 0.3, 1.0, 0.1, 0.3, 1.0])
    assert server.takes(40.0) == pytest.approx(4.1)
    assert small.of(40.0) < 20
    assert worst_factor(learned(server, [40.0], small), server) < 2


def test_job_that_stood_still_for_a_while_teaches_little():
    server = Server(0.5, 0.5)
    times = learned(server, ORDERS["mixed"])
    before = {size: times.of(size) for size in SIZES}
    times.observe(1.0, 100 * server.takes(1.0))
    times.observe(1.0, server.takes(1.0) / 100)
    assert all(0.5 < times.of(size) / before[size] < 2 for size in SIZES)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_server_that_changes_is_followed_within_ten_jobs(factor):
    server = Server(0.5, 0.5)
    times = learned(server, ORDERS["mixed"] * 3)
    changed = Server(0.5 * factor, 0.5 * factor, seed=1)
    assert worst_factor(learned(changed, ORDERS["mixed"], times), changed) < 1.5


def test_many_jobs_of_one_size_leave_what_is_known_of_others():
    server = Server(0.5, 0.5)
    times = learned(server, [*ORDERS["mixed"] * 3, *[1.0] * 1000])
    assert worst_factor(times, server) < 1.6


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e6])
def test_strange_times_break_nothing(seconds):
    times = RunTime(1.0, seconds)
    for work in (0.001, 1.0, 1e4) * 50:
        times.observe(work, seconds)
        assert all(0 <= times.of(size) < 1e9 for size in SIZES)


def test_single_run_has_two_equal_parts():
    times = RunTime(4.0, 2.0)
    assert [times.of(work) for work in (0.0, 4.0, 8.0)] == pytest.approx([1.0, 2.0, 3.0])


class Filter:
    """The textbook's filter in matrices: the state drifts, a run measures 1 = row x state."""

    def __init__(self, work, seconds):
        self.state = np.array([seconds / 2, seconds / 2 / work])
        self.spread = np.diag(self.state**2)
        self.observe(work, seconds)

    def observe(self, work, seconds):
        shares = np.full((2, 2), 0.07**2) + np.eye(2) * 0.02**2
        self.spread = self.spread + shares * np.outer(self.state, self.state)
        row = np.array([1.0, work]) / seconds
        variance = row @ self.spread @ row + 0.2**2
        most = 3 * np.sqrt(variance)
        gain = self.spread @ row / variance
        self.state = self.state + gain * np.clip(1 - row @ self.state, -most, most)
        self.spread = self.spread - np.outer(gain, gain) * variance
        for part in (0, 1):
            if self.state[part] < 0:  # the mean of the other one, given that this one is 0
                ratio = self.spread[0, 1] / self.spread[part, part]
                self.state[1 - part] -= ratio * self.state[part]
                self.state[part] = 0.0
        self.state = np.maximum(self.state, 0.0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("server", [*SERVERS, (0.0, 0.5), (5.0, 0.0)], ids=str)
def test_times_are_those_of_the_textbooks_filter(server, order):
    known = Server(*server, seed=3)
    works = ORDERS[order] * 2
    runs = [(work, known.run(work)) for work in works]
    runs[7] = (works[7], 40 * known.takes(works[7]))  # it stood still for a while
    times, filtered = RunTime(*runs[0]), Filter(*runs[0])
    for work, seconds in runs[1:]:
        times.observe(work, seconds)
        filtered.observe(work, seconds)
        expected = [filtered.state @ (1.0, size) for size in SIZES]
        assert [times.of(size) for size in SIZES] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_run_that_took_no_time_took_a_millisecond():
    for seconds in (0.0, 1e-4, 1e-3):
        assert RunTime(1.0, seconds).of(1.0) == pytest.approx(1e-3)
