"""The planner's laws where calls of lower ranks lead to those of the denoiser: no torch."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.engine.planner import Candidate, Plan, Planner, Policy

LIMIT = 8


@dataclass
class Controlled:
    """A request that calls its nets, by rank, before each of its denoiser's steps."""

    seq: int
    variant: str
    nets: tuple[int, ...]
    steps: int
    done: int = 0

    def candidate(self) -> Candidate:
        if self.done < len(self.nets):
            rank = sorted(self.nets)[self.done]
            return Candidate(self.seq, self.variant, f"net {rank}", 2, urgent=True, rank=rank)
        return Candidate(self.seq, self.variant, "denoiser", 2)

    def advance(self) -> bool:
        """Run the parked call; True when it was the last one."""
        is_step = self.done == len(self.nets)
        self.done = 0 if is_step else self.done + 1
        self.steps -= is_step
        return not self.steps


def run(requests: list[Controlled], limit: int = LIMIT) -> list[tuple[Plan, list[Candidate]]]:
    """Run requests to their ends; gives the plans, and what was parked at each."""
    planner = Planner(Policy(max_live=6, turn_ticks=3), lambda _: limit)
    waiting, live = {one.seq: one for one in requests}, dict[int, Controlled]()
    plans: list[tuple[Plan, list[Candidate]]] = []
    while waiting or live:
        parked = [one.candidate() for one in live.values()]
        queue = [Candidate(one.seq, one.variant) for one in waiting.values()]
        plan = planner.next(parked, queue)
        assert plan.start or plan.batch, "somebody starved"
        live |= {seq: waiting.pop(seq) for seq in plan.start}
        for seq in plan.batch:
            if live[seq].advance():
                del live[seq]
        plans.append((plan, parked))
        assert len(plans) < 5000
    return plans


traffic = st.lists(
    st.builds(
        Controlled,
        seq=st.just(0),
        variant=st.sampled_from(["base", "lora"]),
        nets=st.sets(st.integers(1, 3)).map(tuple),
        steps=st.integers(1, 6),
    ),
    max_size=20,
).map(lambda found: [Controlled(n, r.variant, r.nets, r.steps) for n, r in enumerate(found)])


@settings(max_examples=60)
@given(requests=traffic)
def test_planner_every_net_and_step_of_any_traffic_runs_once(requests: list[Controlled]) -> None:
    wanted = Counter({one.seq: one.steps * (len(one.nets) + 1) for one in requests})
    assert Counter(seq for plan, _ in run(requests) for seq in plan.batch) == wanted


@settings(max_examples=60)
@given(requests=traffic)
def test_planner_denoiser_waits_for_nets_so_that_nobody_misses_its_forward(
    requests: list[Controlled],
) -> None:
    for plan, parked in run(requests):
        nets = [call for call in parked if call.urgent]
        assert plan.urgent is bool(nets)
        if nets:
            (rank,) = {call.rank for call in parked if call.seq in plan.batch}
            assert rank == min(call.rank for call in nets)
        elif plan.batch:
            mates = [call for call in parked if call.variant == plan.variant]
            assert len(plan.batch) == min(len(mates), LIMIT // 2)


def test_planner_nets_shared_by_several_requests_run_once_a_step() -> None:
    pairs = [(1, 2), (2, 3), (1, 3)]
    plans = run([Controlled(seq, "base", pairs[seq % 3], 4) for seq in range(6)], limit=100)
    begun = max(number for number, (plan, _) in enumerate(plans) if plan.start)
    steps = [plan for plan, _ in plans[begun + 1 :]]
    nets = sum(plan.urgent for plan in steps)
    assert nets <= 3 * sum(not plan.urgent for plan in steps)


def test_planner_net_calls_of_two_variants_share_a_forward() -> None:
    planner = Planner(Policy(), lambda _: LIMIT)
    calls = [Controlled(seq, ("base", "lora")[seq], (1,), 1).candidate() for seq in range(2)]
    assert planner.next(calls, []).batch == (0, 1)
