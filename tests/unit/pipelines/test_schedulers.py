import pytest
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from serve_app import errors
from serve_app.pipelines.samplers import SAMPLERS
from serve_app.pipelines.schedulers import Schedulers
from serve_app.types import GenerationSpec, Kind


def spec(name: str, **changes: object) -> GenerationSpec:
    values: dict[str, object] = {
        "model_id": "m",
        "kind": Kind.TEXT2IMG,
        "prompt": "",
        "height": 64,
        "width": 64,
        "steps": 5,
        "scheduler": name,
        "seed": 0,
    }
    return GenerationSpec.model_validate(values | changes)


@pytest.fixture(scope="module")
def schedulers() -> Schedulers:
    return Schedulers(DDIMScheduler(prediction_type="v_prediction", beta_end=0.012))


def test_table_has_the_18_names_of_the_api() -> None:
    assert len(SAMPLERS) == 18


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("karras", [True, False])
def test_make_any_name_runs_with_the_checkpoints_noise(
    schedulers: Schedulers, name: str, karras: bool
) -> None:
    made = schedulers.make(spec(name, use_karras_sigmas=karras))
    made.set_timesteps(5)
    assert type(made).__name__ == SAMPLERS[name].runs
    assert made.config.prediction_type == "v_prediction"
    assert made.config.beta_end == 0.012
    assert made.config.get("use_karras_sigmas", False) is (karras and SAMPLERS[name].karras)


@pytest.mark.parametrize(
    ("name", "asked", "runs"),
    [
        pytest.param("DPMSolverMultistepScheduler", "dpmsolver+++", "sde-dpmsolver++", id="alias"),
        pytest.param("DPMSolverMultistepScheduler", "dpmsolver", "dpmsolver++", id="old"),
        pytest.param(
            "DPMSolverSinglestepScheduler", "sde-dpmsolver++", "sde-dpmsolver++", id="single"
        ),
        pytest.param("DPMSolverMultistepScheduler", None, "dpmsolver++", id="default"),
    ],
)
def test_make_algorithm_type_is_passed_on(
    schedulers: Schedulers, name: str, asked: str | None, runs: str
) -> None:
    made = schedulers.make(spec(name, algorithm_type=asked))
    assert made.config.algorithm_type == runs
    made.set_timesteps(5)


def test_make_algorithm_type_of_other_samplers_is_ignored(schedulers: Schedulers) -> None:
    schedulers.make(spec("DDIMScheduler", algorithm_type="anything"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"scheduler": "NoScheduler"}, "scheduler", id="name"),
        pytest.param({"algorithm_type": "magic"}, "algorithm_type", id="algorithm"),
    ],
)
def test_make_unknown_value_names_its_field(
    schedulers: Schedulers, change: dict[str, str], field: str
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        schedulers.make(spec("DPMSolverMultistepScheduler", **change))
    assert caught.value.field == field


def test_make_twice_gives_independent_schedulers(schedulers: Schedulers) -> None:
    one, other = (schedulers.make(spec("EulerDiscreteScheduler")) for _ in range(2))
    one.set_timesteps(5)
    other.set_timesteps(9)
    assert (len(one.timesteps), len(other.timesteps)) == (5, 9)


def test_make_lcm_takes_more_steps_than_its_default(schedulers: Schedulers) -> None:
    made = schedulers.make(spec("LCMScheduler", steps=80))
    made.set_timesteps(80)
    assert len(made.timesteps) == 80


def test_make_flow_checkpoint_runs_its_own_sampler() -> None:
    schedulers = Schedulers(FlowMatchEulerDiscreteScheduler(shift=3.0))
    made = schedulers.make(spec("PNDMScheduler"))
    assert isinstance(made, FlowMatchEulerDiscreteScheduler)
    assert made.config.shift == 3.0
