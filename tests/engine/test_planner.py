"""The planner's laws, on a simulated denoiser: no torch, no thread."""

import itertools
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.engine.planner import Candidate, Plan, Planner, Policy
from serve_app.fairness import PLAIN, Stake

LIMIT = 4


@dataclass
class Fake:
    """A request that needs so many forwards of its group, in its variant."""

    seq: int
    variant: str
    group: str
    rows: int
    steps: int
    arrives: int
    stake: Stake = PLAIN


class Simulation:
    """Runs requests through a planner and writes down what each tick did."""

    def __init__(self, requests: list[Fake], policy: Policy, limit: int = LIMIT) -> None:
        self.planner = Planner(policy, lambda _: limit)
        self.policy = policy
        self.waiting: dict[int, Fake] = {}
        self.live: dict[int, Fake] = {}
        self.todo = sorted(requests, key=lambda request: request.arrives)
        self.plans: list[Plan] = []
        self.most_live = 0

    def run(self, max_ticks: int = 10_000) -> list[Plan]:
        for tick in range(max_ticks):
            while self.todo and self.todo[0].arrives <= tick:
                request = self.todo.pop(0)
                self.waiting[request.seq] = request
            if not (self.todo or self.waiting or self.live):
                return self.plans
            self._tick()
        raise AssertionError("somebody starved")

    def _tick(self) -> None:
        plan = self.planner.next(
            [
                Candidate(r.seq, r.variant, r.group, r.rows, stake=r.stake)
                for r in self.live.values()
            ],
            [Candidate(r.seq, r.variant, stake=r.stake) for r in self.waiting.values()],
        )
        for seq in plan.start:
            self.live[seq] = self.waiting.pop(seq)
        self.most_live = max(self.most_live, len(self.live))
        self._check(plan)
        for seq in plan.batch:
            self.live[seq].steps -= 1
            if not self.live[seq].steps:
                del self.live[seq]
        self.plans.append(plan)

    def _check(self, plan: Plan) -> None:
        batch = [self.live[seq] for seq in plan.batch]
        assert len({(request.variant, request.group) for request in batch}) <= 1
        assert all(request.variant == plan.variant for request in batch)
        assert len(batch) <= 1 or sum(request.rows for request in batch) <= plan.limit
        assert plan.start or plan.batch or not (self.live or self.waiting)


requests_strategy = st.lists(
    st.builds(
        Fake,
        seq=st.just(0),
        variant=st.sampled_from(["base", "lora"]),
        group=st.sampled_from(["small", "large", "long"]),
        rows=st.integers(1, 6),
        steps=st.integers(1, 20),
        arrives=st.integers(0, 60),
    ),
    max_size=40,
).map(lambda requests: [numbered(i, r) for i, r in enumerate(requests)])


def numbered(seq: int, request: Fake) -> Fake:
    request.seq = seq
    return request


def fakes(count: int, **changes: object) -> list[Fake]:
    values: dict[str, object] = {
        "variant": "base",
        "group": "small",
        "rows": 2,
        "steps": 10,
        "arrives": 0,
    }
    return [Fake(seq=seq, **(values | changes)) for seq in range(count)]  # type: ignore[arg-type]


@settings(max_examples=60)
@given(
    requests=requests_strategy,
    policy=st.builds(
        Policy,
        max_live=st.integers(1, 8),
        max_starts=st.integers(1, 4),
        turn_ticks=st.integers(1, 8),
        turn_groups=st.integers(1, 4),
    ),
)
def test_planner_any_traffic_ends_within_cap_and_live_limit(
    requests: list[Fake], policy: Policy
) -> None:
    work = Counter({request.seq: request.steps for request in requests})
    simulation = Simulation(requests, policy)
    plans = simulation.run()
    assert Counter(seq for plan in plans for seq in plan.batch) == work
    assert simulation.most_live <= policy.max_live


@settings(max_examples=40)
@given(requests=requests_strategy, turn=st.integers(1, 8), groups=st.integers(1, 4))
def test_planner_oldest_request_waits_a_bounded_time(
    requests: list[Fake], turn: int, groups: int
) -> None:
    simulation = Simulation(requests, Policy(max_live=4, turn_ticks=turn, turn_groups=groups))
    plans = simulation.run()
    last_seen = dict.fromkeys(range(len(requests)), -1)
    for tick, plan in enumerate(plans):
        for seq in plan.batch:
            last_seen[seq] = tick
    bound = (groups + 1) * (turn + 2) + 2
    for seq, ends in last_seen.items():
        older = [other for other in range(seq) if last_seen[other] >= 0]
        begins = max([requests[seq].arrives, *(last_seen[other] for other in older)])
        served = sum(seq in plan.batch for plan in plans[begins : ends + 1])
        assert ends - begins <= bound * (served + 1)


def test_planner_full_device_serves_by_age() -> None:
    plans = Simulation(fakes(3, rows=4), Policy()).run()
    assert [seq for plan in plans for seq in plan.batch] == [0] * 10 + [1] * 10 + [2] * 10


def test_planner_call_larger_than_cap_runs_alone() -> None:
    plans = Simulation(fakes(2, rows=6, steps=1), Policy()).run()
    assert [plan.batch for plan in plans if plan.batch] == [(0,), (1,)]
    assert plans[-1].limit == LIMIT


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_planner_first_request_is_first_in_whatever_order_calls_come(
    order: tuple[int, int],
) -> None:
    calls = [Candidate(0, "base", "small", 2), Candidate(1, "base", "large", 2)]
    planner = Planner(Policy(turn_groups=1), lambda _: LIMIT)
    assert planner.next([calls[place] for place in order], []).batch == (0,)


def test_planner_two_groups_take_turns_of_set_length() -> None:
    requests = fakes(2)
    requests[1].group = "large"
    plans = Simulation(requests, Policy(turn_ticks=5)).run()
    assert [plan.batch for plan in plans if plan.batch] == [
        *[(0,)] * 5, *[(1,)] * 5, *[(0,)] * 5, *[(1,)] * 5,
    ]  # fmt: skip


def test_planner_one_turning_group_serves_by_age_across_groups() -> None:
    requests = fakes(2)
    requests[1].group = "large"
    plans = Simulation(requests, Policy(turn_ticks=5, turn_groups=1)).run()
    assert [plan.batch for plan in plans if plan.batch] == [*[(0,)] * 10, *[(1,)] * 10]


def test_planner_stream_of_exclusive_newcomers_does_not_starve_old_group() -> None:
    old = Fake(0, "base", "small", 2, 30, 0)
    stream = [Fake(1 + n, "base", f"alone {n}", 2, 1, n) for n in range(300)]
    plans = Simulation([old, *stream], Policy(turn_ticks=4, turn_groups=2)).run()
    last = max(tick for tick, plan in enumerate(plans) if 0 in plan.batch)
    assert last < 30 * 2


def test_planner_variants_switch_once_per_turn() -> None:
    requests = [Fake(seq, "lora" if seq % 2 else "base", "small", 2, 16, 0) for seq in range(4)]
    plans = Simulation(requests, Policy(turn_ticks=8)).run()
    variants = [plan.variant for plan in plans]
    switches = sum(before != after for before, after in itertools.pairwise(variants))
    assert switches <= 2 * 16 // 8 + 1


def test_planner_turn_goes_on_with_a_group_of_its_variant_before_it_switches() -> None:
    groups = (("base", "small", 1), ("lora", "small", 3), ("base", "large", 3))
    requests = [
        Fake(seq, variant, group, 2, steps, 0) for seq, (variant, group, steps) in enumerate(groups)
    ]
    plans = Simulation(requests, Policy(turn_ticks=8)).run()
    ran = [plan.batch[0] for plan in plans if plan.batch]
    assert list(dict.fromkeys(ran)) == [0, 2, 1]


def test_planner_urgent_call_goes_first_and_keeps_the_turn() -> None:
    planner = Planner(Policy(), lambda _: LIMIT)
    old = Candidate(0, "base", "small", 2)
    decode = Candidate(1, "lora", "decoder", 1, urgent=True)
    plan = planner.next([old, decode], [])
    assert plan.batch == (1,)
    assert plan.urgent
    assert planner.next([old], []).batch == (0,)


def test_planner_oldest_urgent_call_goes_first_unless_another_owner_got_less() -> None:
    planner = Planner(Policy(), lambda _: LIMIT)
    calls = [
        Candidate(seq, "base", f"decoder {seq}", 1, urgent=True, stake=Stake("a")) for seq in (1, 0)
    ]
    assert planner.next(calls, []).batch == (0,)
    planner.next([Candidate(2, "base", "small", 2, stake=Stake("a"))] * 2, [])
    planner.next(
        [
            Candidate(2, "base", "small", 4, stake=Stake("a")),
            Candidate(3, "base", "small", 4, stake=Stake("b")),
        ],
        [],
    )
    other = Candidate(9, "base", "decoder 9", 1, urgent=True, stake=Stake("b"))
    assert planner.next([*calls, other], []).batch == (9,)


def test_planner_urgent_forward_takes_calls_in_their_order_while_they_fit() -> None:
    planner = Planner(Policy(), lambda _: LIMIT)
    calls = [
        Candidate(seq, "base", "decoder", rows, urgent=True)
        for seq, rows in enumerate((1, 2, 3, 1, 1))
    ]
    assert planner.next(calls, []) == Plan(batch=(0, 1, 3), limit=LIMIT, urgent=True)
    large = [Candidate(seq, "base", "decoder", 9, urgent=True) for seq in range(2)]
    assert planner.next(large, []) == Plan(batch=(0,), limit=LIMIT, urgent=True)


def test_planner_starts_so_many_at_once_and_runs_what_fits() -> None:
    planner = Planner(Policy(max_live=9, max_starts=4), lambda _: LIMIT)
    waiting = [Candidate(seq, "base") for seq in range(6)]
    assert planner.next([], waiting) == Plan("base", start=(0, 1, 2, 3))
    calls = [Candidate(seq, "base", "small", 2) for seq in range(4)]
    assert planner.next(calls, waiting[4:]).start == (4, 5)
    assert planner.next(calls, []) == Plan("base", (), (0, 1), LIMIT)


def test_planner_owner_who_had_a_device_for_himself_owes_nothing_to_who_comes() -> None:
    planner = Planner(Policy(), lambda _: 2)
    first, second = (
        Candidate(seq, "base", "small", 2, stake=Stake(owner)) for seq, owner in enumerate("ab")
    )
    planner.next([first], [])
    assert planner.next([first, second], []).batch == (0,)
    assert planner.next([first, second], []).batch == (1,)


def test_planner_nobody_is_ahead_when_all_calls_have_gone() -> None:
    planner = Planner(Policy(), lambda _: 2)
    calls = [
        Candidate(seq, "base", "small", 2, stake=Stake(owner)) for seq, owner in enumerate("abab")
    ]
    assert planner.next(calls[:2], []).batch == (0,)
    waiting = [Candidate(call.seq, "base", stake=call.stake) for call in calls[2:]]
    assert planner.next([], waiting).start == (2, 3)
    assert planner.next(calls[2:], []).batch == (2,)


def test_planner_owners_who_got_as_much_are_served_by_the_age_of_what_they_want() -> None:
    planner = Planner(Policy(max_live=9, max_starts=9), lambda _: 6)
    owners = {0: "a", 1: "b", 2: "b", 9: "a"}
    waiting = [Candidate(seq, "base", stake=Stake(owner)) for seq, owner in owners.items()]
    assert planner.next([], waiting).start == (0, 1, 2, 9)
    calls = [Candidate(item.seq, "base", "small", 2, stake=item.stake) for item in waiting]
    assert planner.next(calls, []).batch == (0, 1, 2)


def test_planner_start_counts_once_against_its_owner() -> None:
    planner = Planner(Policy(max_live=2, max_guests=0), lambda _: LIMIT)
    old, new = Stake("a"), Stake("b")
    other = Candidate(50, "base", "small", 2, stake=Stake("c"))
    waiting = [Candidate(seq, "base", stake=new) for seq in (1, 2)]
    assert planner.next([other], [Candidate(0, "base", stake=old), *waiting]).start == (0,)
    assert planner.next([], [*waiting, Candidate(9, "base", stake=old)]).start == (1, 2)


def test_policy_and_plan_say_little_by_themselves() -> None:
    assert Policy() == Policy(32, 16, 4, 8, 2)
    assert Plan() == Plan(None, (), (), 0, False)


def test_planner_nothing_to_do_gives_empty_plan() -> None:
    assert Planner(Policy(), lambda _: LIMIT).next([], []) == Plan()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_planner_small_cap_still_moves(limit: int) -> None:
    Simulation(fakes(3), Policy(), limit=limit).run()
