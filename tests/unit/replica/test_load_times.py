"""How long a load will take, by what loads took."""

import pytest

from serve_app.replica.load_times import LoadTimes


@pytest.fixture
def times():
    return LoadTimes()


def test_nothing_is_known_before_the_first_load(times):
    assert times.expect_s("a", 1000) == 0


def test_model_takes_what_it_took_and_its_newest_load_counts_for_three_tenths(times):
    times.observe("a", 100, 10.0)
    assert times.expect_s("a", 999) == 10
    times.observe("a", 100, 20.0)
    assert times.expect_s("a", 999) == pytest.approx(13)
    times.observe("a", 100, 3.0)
    assert times.expect_s("a", 999) == pytest.approx(10)


def test_other_models_take_as_long_as_their_bytes(times):
    times.observe("a", 100, 10.0)
    assert times.expect_s("b", 250) == pytest.approx(25)
    times.observe("c", 100, 20.0)
    assert times.expect_s("b", 100) == pytest.approx(13)


def test_model_without_bytes_counts_as_one(times):
    times.observe("a", 0, 10.0)
    assert times.expect_s("b", 2) == pytest.approx(20)
