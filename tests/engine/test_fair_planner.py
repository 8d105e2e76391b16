"""Owners share the forwards by weight: laws of the planner, on a simulated denoiser."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.engine.planner import Candidate, Plan, Planner, Policy
from serve_app.fairness import Stake
from tests.engine.test_planner import Fake, Simulation

ROWS = 2  # of a guided picture
HEAVY, LIGHT = Stake("heavy"), Stake("light")


def requests(count: int, stake: Stake, first: int = 0, **changes: object) -> list[Fake]:
    values: dict[str, object] = {
        "variant": "base",
        "group": "small",
        "rows": ROWS,
        "steps": 30,
        "arrives": 0,
    }
    return [Fake(first + n, stake=stake, **(values | changes)) for n in range(count)]  # type: ignore[arg-type]


def forwards(plans: Iterable[Plan]) -> list[Plan]:
    return [plan for plan in plans if plan.batch]


def wait(plans: list[Plan], request: Fake) -> int:
    """Forwards of others from the arrival of a request to its end."""
    ends = max(tick for tick, plan in enumerate(plans) if request.seq in plan.batch)
    meanwhile = forwards(plans[request.arrives : ends + 1])
    return sum(request.seq not in plan.batch for plan in meanwhile)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    num_heavy=st.integers(1, 100),
    rows=st.integers(1, 4),
    steps=st.integers(1, 50),
    own_steps=st.integers(1, 50),
    arrives=st.integers(0, 200),
    limit=st.sampled_from([4, 8, 32]),
)
def test_light_caller_waits_for_one_forward_at_most(
    num_heavy: int, rows: int, steps: int, own_steps: int, arrives: int, limit: int
) -> None:
    """He rides in the forwards of the heavy one, though that one has far more than fits."""
    heavy = requests(num_heavy, HEAVY, rows=min(rows, limit - ROWS), steps=steps)
    (light,) = requests(1, LIGHT, first=num_heavy, steps=own_steps, arrives=arrives)
    plans = Simulation([*heavy, light], Policy(), limit=limit).run()
    assert wait(plans, light) <= 1


@pytest.mark.slow
@settings(max_examples=40)
@given(
    num_heavy=st.integers(1, 60),
    own_steps=st.integers(1, 50),
    own_rows=st.integers(1, 8),
    arrives=st.integers(0, 100),
    num_groups=st.integers(1, 5),
)
def test_light_caller_of_another_size_waits_for_one_forward_per_step(
    num_heavy: int, own_steps: int, own_rows: int, arrives: int, num_groups: int
) -> None:
    heavy = requests(num_heavy, HEAVY)
    for request in heavy:
        request.group = f"size {request.seq % num_groups}"
    values: dict[str, object] = {"steps": own_steps, "rows": own_rows, "arrives": arrives}
    (light,) = requests(1, LIGHT, first=num_heavy, group="own", **values)
    plans = Simulation([*heavy, light], Policy(), limit=8).run()
    assert wait(plans, light) <= own_steps + 1


stakes = st.builds(
    Stake,
    owner=st.sampled_from("abcd"),
    weight=st.sampled_from([0.25, 1.0, 3.0]),
    priority=st.integers(-2, 3),
)
traffic = st.lists(
    st.builds(
        Fake,
        seq=st.just(0),
        variant=st.sampled_from(["base", "lora"]),
        group=st.sampled_from(["small", "large", "long"]),
        rows=st.integers(1, 6),
        steps=st.integers(1, 20),
        arrives=st.integers(0, 60),
        stake=stakes,
    ),
    max_size=40,
)
policies = st.builds(
    Policy,
    max_live=st.integers(1, 8),
    max_guests=st.integers(0, 4),
    max_starts=st.integers(1, 4),
    turn_ticks=st.integers(1, 8),
    turn_groups=st.integers(1, 4),
)


@pytest.mark.slow
@settings(max_examples=100)
@given(traffic=traffic, policy=policies)
def test_any_traffic_of_any_owners_ends_within_the_bounds(
    traffic: list[Fake], policy: Policy
) -> None:
    for seq, request in enumerate(traffic):
        request.seq = seq
    work = Counter({request.seq: request.steps for request in traffic})
    simulation = Simulation(traffic, policy)
    plans = simulation.run()
    assert Counter(seq for plan in plans for seq in plan.batch) == work
    assert simulation.most_live <= policy.max_live + policy.max_guests


@settings(max_examples=100)
@given(calls=st.lists(st.tuples(st.integers(1, 6), stakes), min_size=1, max_size=20))
def test_no_row_stays_empty_that_a_call_would_fit(calls: list[tuple[int, Stake]]) -> None:
    planner = Planner(Policy(), lambda _: 8)
    candidates = [
        Candidate(seq, "base", "small", rows, stake=stake)
        for seq, (rows, stake) in enumerate(calls)
    ]
    for _ in range(5):
        plan = planner.next(candidates, [])
        free = 8 - sum(candidates[seq].rows for seq in plan.batch)
        assert all(call.rows > free for call in candidates if call.seq not in plan.batch)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    weights=st.lists(st.integers(1, 8), min_size=2, max_size=5),
    limit=st.sampled_from([2, 6, 8, 32]),
    has_groups=st.booleans(),
)
def test_owners_with_enough_work_get_rows_by_weight(
    weights: list[int], limit: int, has_groups: bool
) -> None:
    """Whether they could share forwards or not; nobody is off by more than one forward's rows."""
    planner = Planner(Policy(turn_groups=8), lambda _: limit)
    per_owner = limit // ROWS  # one alone fills a forward
    candidates = [
        Candidate(
            number * per_owner + one,
            "base",
            f"size {number}" if has_groups else "small",
            ROWS,
            stake=Stake(str(number), weight),
        )
        for number, weight in enumerate(weights)
        for one in range(per_owner)
    ]
    owner = {call.seq: int(call.stake.owner) for call in candidates}
    got = Counter[int]()
    for _ in range(200):
        got.update(owner[seq] for seq in planner.next(candidates, []).batch)
    shares = [ROWS * got[number] / weight for number, weight in enumerate(weights)]
    step = limit if has_groups else ROWS
    assert max(shares) - min(shares) <= 2 * step


def test_row_that_others_wait_for_is_charged_to_who_leaves_it_empty() -> None:
    planner = Planner(Policy(), lambda _: 4)
    full = Candidate(0, "base", "large", 4, stake=HEAVY)
    half = Candidate(1, "base", "small", 2, stake=LIGHT)
    got = Counter(planner.next([full, half], []).batch[0] for _ in range(200))
    assert got[0] == pytest.approx(100, abs=8)


def test_priority_counts_as_twice_the_weight_and_has_its_price() -> None:
    """One owner's urgent call takes part of what is his, not what is others'."""
    planner = Planner(Policy(), lambda _: ROWS)
    urgent = Candidate(0, "base", "small", ROWS, stake=Stake("a", priority=1))
    plain = Candidate(1, "base", "small", ROWS, stake=Stake("b"))
    got = Counter(planner.next([urgent, plain], []).batch[0] for _ in range(300))
    assert got[0] == pytest.approx(200, abs=2)


def test_urgent_request_overtakes_a_bounded_number_of_its_owner() -> None:
    older = requests(40, HEAVY, steps=1)
    (urgent,) = requests(1, Stake("heavy", priority=1), first=40, steps=1)
    plans = forwards(Simulation([*older, urgent], Policy(), limit=ROWS).run())
    order = [plan.batch[0] for plan in plans]
    assert order[:11] == [*range(9), 40, 9]


def test_nobody_saves_up_what_he_did_not_ask_for() -> None:
    """Who took little for long gets his part from then on, and no more."""
    planner = Planner(Policy(), lambda _: 4)
    heavy = [Candidate(seq, "base", "small", ROWS, stake=HEAVY) for seq in range(8)]
    light = [Candidate(8 + seq, "base", "small", ROWS, stake=LIGHT) for seq in range(8)]
    for _ in range(100):
        planner.next([*heavy, light[0]], [])
        planner.next(heavy, [])
    got = Counter(seq < 8 for _ in range(10) for seq in planner.next([*heavy, *light], []).batch)
    assert abs(got[True] - got[False]) <= 2


def test_guest_begins_although_others_hold_all_places() -> None:
    planner = Planner(Policy(max_live=4, max_guests=2), lambda _: 32)
    heavy = [Candidate(seq, "base", "small", ROWS, stake=HEAVY) for seq in range(4)]
    more = [Candidate(4 + seq, "base", stake=HEAVY) for seq in range(9)]
    guests = [Candidate(20 + seq, "base", stake=LIGHT) for seq in range(9)]
    assert planner.next(heavy, more).start == ()
    assert planner.next(heavy, [*more, *guests]).start == (20, 21)


def test_places_that_become_free_go_to_owners_in_turn() -> None:
    planner = Planner(Policy(max_live=1, max_guests=0), lambda _: 32)
    waiting = [Candidate(seq, "base", stake=HEAVY if seq < 20 else LIGHT) for seq in range(40)]
    started: list[int] = []
    for _ in range(10):
        (seq,) = planner.next([], waiting).start
        started.append(seq)
        waiting = [item for item in waiting if item.seq != seq]
    assert started == [0, 20, 1, 21, 2, 22, 3, 23, 4, 24]


def test_start_counts_as_much_in_its_own_tick_as_in_later_ones() -> None:
    """One of two owners was the only one to begin while there was one place for them."""
    planner = Planner(Policy(max_live=4, max_guests=0, max_starts=8), lambda _: 32)
    waiting = [Candidate(seq, "base", stake=(HEAVY, LIGHT)[seq % 2]) for seq in range(8)]
    others = [Candidate(20 + seq, "base", "small", ROWS, stake=Stake("c")) for seq in range(3)]
    assert planner.next(others, waiting).start == (0,)
    assert planner.next([], waiting[1:]).start == (1, 2, 3, 4)


def test_owner_of_another_variant_waits_for_one_turn() -> None:
    """A switch costs time, so the turn is not cut short for him."""
    heavy = requests(9, HEAVY)
    (light,) = requests(1, LIGHT, first=9, variant="lora", arrives=20, steps=8)
    plans = Simulation([*heavy, light], Policy(turn_ticks=8), limit=4).run()
    assert wait(plans, light) <= 8 + 1


def test_old_request_of_little_weight_does_not_starve() -> None:
    """It gets a step for 64 of each of the others, whose stream does not end meanwhile."""
    (patient,) = requests(1, Stake("a", weight=0.25, priority=-4), steps=3)
    stream = [
        Fake(1 + tick, "base", "small", ROWS, 1, tick, Stake(f"new {tick % 3}"))
        for tick in range(800)
    ]
    plans = Simulation([patient, *stream], Policy(), limit=ROWS).run()
    assert wait(plans, patient) <= 2 * 64 * 3 + 8


def test_old_request_does_not_starve_behind_urgent_ones_of_its_owner() -> None:
    (patient,) = requests(1, Stake("a", priority=-4), steps=2)
    stream = [
        Fake(1 + tick, "base", "small", ROWS, 1, tick, Stake("a", priority=4))
        for tick in range(600)
    ]
    plans = Simulation([patient, *stream], Policy(), limit=ROWS).run()
    assert wait(plans, patient) <= 8 * 32 + 40
