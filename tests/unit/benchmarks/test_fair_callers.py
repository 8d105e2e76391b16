"""The light caller's wait beside a heavy one, on the simulated device with the real planner."""

from dataclasses import replace

import pytest

from benchmarks.simulator.devices import FAMILIES
from benchmarks.simulator.fair import Callers


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("has_size", [False, True], ids=["same-size", "own-size"])
def test_light_caller_waits_for_one_forward_of_others_per_step_and_a_tenth(family, has_size):
    beside = Callers(family, num_light=3, has_size=has_size)
    alone = replace(beside, num_heavy=0).run()
    assert beside.run().most_s <= beside.bound_s(alone)


def test_by_age_alone_he_waits_for_all_that_is_open():
    """What the bound is worth: without owners he is beyond it many times."""
    beside = Callers(num_light=2)
    alone = replace(beside, num_heavy=0).run()
    assert replace(beside, is_fair=False).run().most_s > 10 * beside.bound_s(alone)


def test_forwards_are_shared_as_before():
    """The device makes as many pictures as it does when it serves by age."""
    fair, by_age = (Callers(num_light=2, is_fair=is_fair).run() for is_fair in (True, False))
    assert fair.per_s == pytest.approx(by_age.per_s, rel=0.02)
