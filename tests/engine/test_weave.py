"""Strands that stop at their calls, and how the planner sees them."""

import pytest
import torch

from serve_app.engine.lane import Call, Lane
from serve_app.engine.planner import Candidate
from serve_app.engine.request import Outcome, Request
from serve_app.engine.weave import Abandoned, Weave, park
from serve_app.fairness import PLAIN, Stake
from tests.engine.toys import Body, Denoiser


def test_lane_and_candidate_are_plain_unless_they_say_otherwise() -> None:
    lane = Lane("x", lambda given: given)
    assert (lane.shared, lane.optional, lane.marks) == (frozenset(),) * 3
    assert (lane.urgent, lane.rank, lane.max_rows, lane.cap_name) == (False, 0, 0, "x")
    assert Lane("x", lambda given: given, caps="y").cap_name == "y"
    assert Candidate(1, "base") == Candidate(1, "base", None, 0, False, 0, PLAIN)


@pytest.mark.parametrize("urgent", [True, False])
def test_parked_call_is_a_candidate_of_its_request(urgent: bool) -> None:
    lane = Lane("decoder", Denoiser(), urgent=urgent, rank=3)
    request = Request(Body(lane, rows=2), key="k", variant="lora", stake=Stake("a", 2.0), seq=7)
    weave = Weave()
    weave.start(request)
    entry = weave.parked[7]
    assert entry.candidate == Candidate(
        seq=7,
        variant="lora",
        group=entry.call.group("k", None),
        rows=2,
        urgent=urgent,
        rank=3,
        stake=Stake("a", 2.0),
    )


def test_calls_share_a_forward_if_lane_size_shape_and_key_agree() -> None:
    lane = Lane("denoiser", Denoiser())

    def group(lane: Lane = lane, size: int = 8, width: int = 8, key: str = "k") -> object:
        return Call(lane, {"sample": torch.zeros(2, width)}, 2, size).group(key, None)

    others = [group(Lane("denoiser", lane.run)), group(size=9), group(width=9), group(key="l")]
    assert group() == group()
    assert group() not in others
    urgent = Lane("decoder", lane.run, urgent=True)
    assert group(urgent, key="k") == group(urgent, key="l")


def test_strand_goes_on_with_its_output_until_its_end() -> None:
    weave, request = Weave(), Request(lambda: (park(call), park(call)), seq=1)
    call = Call(Lane("denoiser", Denoiser()), {"sample": torch.zeros(2, 8)}, 2, 8)
    weave.start(request)
    weave.resume(1, "first")
    assert list(weave.parked) == [1]
    weave.resume(1, "second")
    assert weave.ended == [request]
    assert request.outcome == Outcome(("first", "second"))
    assert not request.future.done(), "its client is told by the engine"
    assert weave.parked == {}
    assert weave._strands == {}


def test_error_in_a_call_may_be_handled_and_the_end_of_a_client_not() -> None:
    def body() -> object:
        try:
            return park(call)
        except Exception:
            return park(call)

    call = Call(Lane("denoiser", Denoiser()), {"sample": torch.zeros(2, 8)}, 2, 8)
    weave, request = Weave(), Request(body, seq=1)
    weave.start(request)
    weave.throw(1, ValueError("a bad row"))
    assert list(weave.parked) == [1]
    weave.throw(1, Abandoned())
    assert request.future.cancelled()
    assert weave.parked == {}
    assert weave.ended == []
