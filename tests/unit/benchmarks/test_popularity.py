"""Popularity has the Gini coefficient that it is asked for."""

import numpy as np
import pytest

from benchmarks.popularity import PUBLISHED_GINI, gini, zipf


@pytest.mark.parametrize(
    ("shares", "expected"),
    [([1, 1, 1, 1], 0.0), ([0, 0, 0, 5], 0.75), ([1, 3], 0.25), ([3, 1], 0.25)],
    ids=["equal", "one-has-all", "two", "order"],
)
def test_gini_is_half_the_mean_difference(shares, expected):
    values = np.array(shares, dtype=float)
    by_pairs = np.abs(values[:, None] - values).mean() / 2 / values.mean()  # its definition
    assert gini(shares) == pytest.approx(expected)
    assert by_pairs == pytest.approx(expected)


@pytest.mark.parametrize("count", [20, 400, 14_500])
@pytest.mark.parametrize("coefficient", [0.0, 0.5, PUBLISHED_GINI])
def test_shares_have_the_coefficient_asked_for(count, coefficient):
    shares = zipf(count, coefficient)
    assert shares.sum() == pytest.approx(1)
    assert np.all(np.diff(shares) <= 0)
    assert gini(shares) == pytest.approx(coefficient, abs=1e-6)


@pytest.mark.parametrize("count", [200, 400, 1_000, 10_000])
def test_most_popular_twentieth_takes_what_the_study_found(count):
    taken = zipf(count)[: count // 20].sum()
    assert taken == pytest.approx(0.78, abs=0.025)


@pytest.mark.parametrize("coefficient", [0.5, 0.9, -0.1], ids=["bound", "above", "below"])
def test_two_things_cannot_have_just_any_coefficient(coefficient):
    with pytest.raises(ValueError, match="2 things cannot have"):
        zipf(2, coefficient)


def test_single_thing_has_everything():
    assert zipf(1).tolist() == [1.0]
