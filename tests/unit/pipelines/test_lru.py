"""A budget of bytes that never costs anybody what he uses."""

import pytest

from serve_app.pipelines.addons.lru import Lru, Uses


@pytest.fixture
def uses():
    return Uses()


@pytest.fixture
def kept(uses):
    return Lru(100, uses)


def test_the_longest_not_asked_for_goes_first(kept):
    for key in "abc":
        assert kept.put(key, key.upper(), 30) == []
    assert kept.get("a") == "A"
    assert kept.put("d", "D", 40) == ["B"]
    assert kept.get("b") is None
    assert [kept.get(key) for key in "acd"] == ["A", "C", "D"]


def test_what_is_taken_is_kept_no_longer(kept):
    kept.put("a", "A", 60)
    assert kept.take("a") == "A"
    assert kept.get("a") is kept.take("a") is None
    assert kept.put("b", "B", 100) == []


def test_as_many_go_as_it_takes(kept):
    for key in "abc":
        kept.put(key, key, 30)
    assert kept.put("large", "large", 95) == ["a", "b", "c"]


def test_what_is_used_stays_whatever_it_takes(kept, uses):
    kept.put("a", "A", 60)
    kept.put("b", "B", 30)
    with uses.holding(["a"]), uses.holding(["a"]):
        assert kept.put("c", "C", 60) == ["B"]
        assert kept.get("a") == "A"
    assert "a" not in uses
    assert kept.put("d", "D", 10) == ["C"]


def test_what_is_larger_than_the_budget_is_kept_until_the_next(kept):
    assert kept.put("huge", "huge", 1000) == []
    assert kept.get("huge") == "huge"
    assert kept.put("a", "A", 1) == ["huge"]


def test_use_that_fails_ends(uses):
    with pytest.raises(ValueError), uses.holding(["a", "b"]):  # noqa: PT012
        assert "b" in uses
        raise ValueError
    assert "a" not in uses


def test_budget_says_what_has_room(kept):
    assert [kept.fits(size) for size in (0, 100, 101)] == [True, True, False]
    assert not Lru(0, Uses()).fits(1)
