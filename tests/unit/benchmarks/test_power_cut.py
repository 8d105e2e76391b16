"""A job whose number was told is there after `kill -9`, a torn write and a power cut."""

import shutil

import pytest

from benchmarks.power_cut import accept_until_killed, cut_power, lost, tear

pytestmark = pytest.mark.slow
traced = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_killed_in_mid_write(tmp_path):
    path = tmp_path / "jobs.db"
    told, _ = accept_until_killed(path, number=200)
    tear(path)
    assert len(told) >= 200
    assert not lost(path, told)


@traced
def test_power_is_cut(tmp_path):
    path, trace = tmp_path / "jobs.db", tmp_path / "trace"
    told, _ = accept_until_killed(path, number=200, trace=trace)
    cut_power(path, trace)
    assert not lost(path, told)


@traced
def test_commits_that_do_not_wait_for_the_disk_are_lost(tmp_path):
    """Otherwise the test above could not fail."""
    path, trace = tmp_path / "jobs.db", tmp_path / "trace"
    told, _ = accept_until_killed(path, number=200, is_durable=False, trace=trace)
    cut_power(path, trace)
    assert lost(path, told)
