"""What `meta` says of a sampler, in the words of the request."""

import pytest

from serve_app import errors
from serve_app.pipelines.samplers.names import algorithm_of, in_meta, will_run
from tests.builders import spec

MULTISTEP = "DPMSolverMultistepScheduler"


@pytest.mark.parametrize(
    ("asked", "ran", "said"),
    [
        (None, None, "no"),
        (None, "dpmsolver++", "no"),  # the usual one, for which nobody asked
        (None, "sde-dpmsolver++", "sde-dpmsolver++"),  # the checkpoint's
        (None, "deis", "no"),  # which a request cannot name
        ("dpmsolver++", "dpmsolver++", "dpmsolver++"),
        ("dpmsolver", "dpmsolver++", "dpmsolver++"),
        ("sde-dpmsolver++", "sde-dpmsolver++", "sde-dpmsolver++"),
        ("dpmsolver+++", "sde-dpmsolver++", "dpmsolver+++"),
        ("dpmsolver+++", "dpmsolver++", "dpmsolver++"),
        ("dpmsolver+++", "deis", "no"),
    ],
)
def test_algorithm_is_told_as_the_request_spells_it(asked, ran, said):
    told = in_meta("X", spec(algorithm_type=asked), is_karras=False, algorithm=ran)
    assert told == {"scheduler": "X", "use_karras_sigmas": "no", "algorithm_type": said}
    assert in_meta("X", spec(), is_karras=True, algorithm=None)["use_karras_sigmas"] == "yes"


@pytest.mark.parametrize(
    ("scheduler", "karras", "algorithm", "told"),
    [
        (MULTISTEP, True, "dpmsolver+++", (MULTISTEP, "yes", "dpmsolver+++")),
        (MULTISTEP, False, None, (MULTISTEP, "no", "no")),
        ("DDIMScheduler", True, "anything", ("DDIMScheduler", "no", "no")),
        ("IPNDMScheduler", True, None, ("PNDMScheduler", "no", "no")),
        ("KarrasVeScheduler", True, None, ("HeunDiscreteScheduler", "yes", "no")),
    ],
)
def test_what_will_run_is_told_before_it_does(scheduler, karras, algorithm, told):
    asked = spec(scheduler=scheduler, use_karras_sigmas=karras, algorithm_type=algorithm)
    assert tuple(will_run(asked).values()) == told


def test_algorithm_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(errors.InvalidRequest) as caught:
        algorithm_of(spec(scheduler=MULTISTEP, algorithm_type="magic"))
    assert caught.value.field == "algorithm_type"
    assert caught.value.public_message == "algorithm_type is one of dpmsolver++, sde-dpmsolver++"
    with pytest.raises(errors.InvalidRequest, match="The scheduler Magic is not known") as caught:
        algorithm_of(spec(scheduler="Magic"))
    assert caught.value.field == "scheduler"
