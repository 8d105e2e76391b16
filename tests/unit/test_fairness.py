"""Shares by weight: bounds of `VirtualTime` and `Places`, whatever is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.fairness import Places, Stake, VirtualTime, line_place, turn

OWNERS = "abc"


def serve(time: VirtualTime, wants: dict[str, float], weights: dict[str, float]) -> str:
    """Give one owner what it wants; the others are left wanting."""
    time.begin(wants.keys())
    chosen = min(wants, key=lambda owner: (time.tag(owner), owner))
    time.spend(chosen, wants[chosen] / weights[chosen])
    time.end(wants.keys() - {chosen})
    return chosen


@given(
    weights=st.lists(st.integers(1, 8), min_size=3, max_size=3),
    costs=st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=200),
)
def test_those_who_always_want_something_get_it_by_weight(weights, costs):
    """The bound of start-time fair queueing: the largest piece of each of the two."""
    time, got = VirtualTime(), dict.fromkeys(OWNERS, 0.0)
    by_owner = dict(zip(OWNERS, weights, strict=True))
    for pieces in costs:
        wants = dict(zip(OWNERS, pieces, strict=True))
        chosen = serve(time, wants, by_owner)
        got[chosen] += wants[chosen] / by_owner[chosen]
        for one in OWNERS:
            for other in OWNERS:
                bound = 9 / by_owner[one] + 9 / by_owner[other]
                assert abs(got[one] - got[other]) <= bound + 1e-9


@given(before=st.integers(0, 500), absent=st.integers(1, 500))
def test_who_was_away_saved_nothing_up_and_owes_nothing(before, absent):
    time, weights = VirtualTime(), dict.fromkeys(OWNERS, 1.0)
    for _ in range(before):
        serve(time, {"b": 1.0}, weights)
    for _ in range(absent):
        serve(time, {"a": 1.0}, weights)
    both = [serve(time, {"a": 1.0, "b": 1.0}, weights) for _ in range(20)]
    assert abs(both.count("a") - both.count("b")) <= 2


@given(st.lists(st.tuples(st.sampled_from(OWNERS), st.booleans()), max_size=300))
def test_nobody_is_remembered_who_is_not_ahead_of_the_others(events):
    time, weights = VirtualTime(), dict.fromkeys(OWNERS, 1.0)
    for owner, is_alone in events:
        serve(time, {owner: 1.0} if is_alone else {owner: 1.0, "x": 1.0}, weights | {"x": 1.0})
    for number in range(50):
        serve(time, {f"new {number}": 1.0}, {f"new {number}": 1.0})
        serve(time, {"a": 1.0, f"new {number}": 1.0}, weights | {f"new {number}": 1.0})
    assert len(time.tags()) <= 3


@given(
    arrivals=st.lists(st.sampled_from(OWNERS), max_size=80),
    limit=st.integers(1, 8),
    guests=st.integers(0, 8),
)
def test_places_fill_up_and_leave_room_for_who_has_less_than_his_part(arrivals, limit, guests):
    places, weights = Places(limit, guests), dict.fromkeys(OWNERS, 1.0)
    held: dict[str, int] = {}
    for owner in arrivals:
        total = sum(held.values())
        has_room = places.has_room(owner, held, weights)
        assert has_room or total >= limit
        assert not has_room or total < limit + guests
        if not held.get(owner) and total < limit + guests:
            assert has_room
        if has_room:
            held[owner] = held.get(owner, 0) + 1


def test_guests_take_no_more_than_their_part():
    places, weights = Places(4, 4), {"a": 3.0, "b": 1.0}
    assert places.has_room("b", {"a": 4}, weights)
    assert not places.has_room("b", {"a": 4, "b": 1}, weights)
    assert not places.has_room("a", {"a": 4}, weights)


def test_priority_overtakes_a_bounded_number_of_jobs():
    urgent, patient = Stake("a", priority=1), Stake("a", priority=-1)
    assert line_place(100, urgent) < line_place(70, Stake("a"))
    assert line_place(100, urgent) > line_place(60, Stake("a"))
    assert line_place(100, patient) > line_place(130, Stake("a"))
    assert urgent.pull == 2 * Stake("a").pull == 4 * patient.pull


def test_job_in_a_store_is_due_in_the_end_whatever_comes_after_it():
    """A patient one with nine before it, against first jobs of ever new keys."""
    patient, new = Stake("a", weight=0.5, priority=-1), Stake("b")
    mine = turn(1, patient, num_before=9)
    assert turn(2, new, num_before=0) < mine
    overtaken = sum(turn(number, new, num_before=0) < mine for number in range(2, 10_000))
    assert overtaken == pytest.approx(100 * 39, abs=2)
