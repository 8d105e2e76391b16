import inspect

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
)

from serve_app import errors
from serve_app.api.requests.scheduler import SCHEDULERS
from serve_app.pipelines.samplers.names import SAMPLERS
from serve_app.pipelines.samplers.schedulers import Schedulers, ran_sampler
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
    assert set(SAMPLERS) == set(SCHEDULERS)  # else a call is refused that could be painted


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


@pytest.mark.parametrize(
    ("name", "said", "runs"),
    [
        ("DDIMScheduler", "linspace", "leading"),
        ("DDIMScheduler", "trailing", "trailing"),
        ("EulerDiscreteScheduler", "linspace", "linspace"),
        ("EulerDiscreteScheduler", "leading", "leading"),
    ],
)
def test_make_keeps_the_spacing_of_the_checkpoint_where_the_class_can_run_it(
    name: str, said: str, runs: str
) -> None:
    made = Schedulers(DDIMScheduler(timestep_spacing=said)).make(spec(name))
    assert made.config.timestep_spacing == runs


@pytest.mark.parametrize(
    ("changes", "skipped"),
    [
        ({"kind": Kind.TEXT2IMG}, 0),
        ({"kind": Kind.IMG2IMG, "strength": 1.0}, 0),
        ({"kind": Kind.IMG2IMG, "strength": 0.55}, 5),  # stock pipelines run int(5.5) of ten
        ({"kind": Kind.IMG2IMG, "strength": 0.29}, 8),
    ],
)
def test_make_pndm_is_told_how_many_steps_a_picture_skips(
    schedulers: Schedulers, changes: dict[str, object], skipped: int
) -> None:
    assert schedulers.make(spec("PNDMScheduler", steps=10, **changes)).skipped == skipped


def test_make_flow_checkpoint_runs_its_own_sampler() -> None:
    schedulers = Schedulers(FlowMatchEulerDiscreteScheduler(shift=3.0))
    made = schedulers.make(spec("PNDMScheduler"))
    assert isinstance(made, FlowMatchEulerDiscreteScheduler)
    assert made.config.shift == 3.0


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(EDMEulerScheduler(sigma_max=70.0), id="edm"),
        pytest.param(EulerDiscreteScheduler(timestep_type="continuous"), id="continuous"),
    ],
)
def test_make_checkpoint_without_timesteps_runs_its_own_sampler(base: SchedulerMixin) -> None:
    made = Schedulers(base).make(spec("DDIMScheduler", use_karras_sigmas=True))
    assert type(made).__name__ == type(base).__name__
    assert made.config == base.config


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_make_takes_betas_that_the_file_leaves_out_from_the_checkpoints_class(name: str) -> None:
    base = DDIMScheduler.from_config({})
    made = Schedulers(base).make(spec(name))
    torch.testing.assert_close(made.betas, base.betas)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_make_rescales_the_betas_of_every_class(name: str) -> None:
    base = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    made = Schedulers(base).make(spec(name))
    assert made.alphas_cumprod[-1] <= 1.01 * 2**-24
    torch.testing.assert_close(
        made.alphas_cumprod[:-1], base.alphas_cumprod[:-1], atol=1e-7, rtol=1e-3
    )


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_make_never_cuts_latents_off(name: str) -> None:
    base = DDIMScheduler(clip_sample=True, thresholding=True)
    made = Schedulers(base).make(spec(name))
    takes = inspect.signature(type(made).__init__).parameters
    cutting = [key for key in ("clip_sample", "thresholding") if key in takes and made.config[key]]
    assert not cutting  # the configuration keeps what the class does not take


@pytest.mark.filterwarnings("ignore:.*dpmsolver.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"algorithm_type": "sde-dpmsolver++"}, id="sde"),
        pytest.param(
            {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, id="given-up"
        ),
        pytest.param({"use_beta_sigmas": True}, id="beta-sigmas"),
        pytest.param({"use_exponential_sigmas": True}, id="exponential-sigmas"),
    ],
)
def test_make_any_name_of_a_checkpoint_with_options_of_its_own(
    name: str, config: dict[str, object]
) -> None:
    made = Schedulers(DPMSolverMultistepScheduler(**config)).make(
        spec(name, use_karras_sigmas=True)
    )
    made.set_timesteps(5)
    assert type(made).__name__ == SAMPLERS[name].runs


@pytest.mark.parametrize(
    ("base", "name", "told"),
    [
        pytest.param(
            DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            "UniPCMultistepScheduler",
            {"scheduler": "UniPCMultistepScheduler", "use_karras_sigmas": "no"},
            id="cosine",
        ),
        pytest.param(
            DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"),
            "PNDMScheduler",
            {"scheduler": "DDIMScheduler", "use_karras_sigmas": "no"},
            id="zero-snr",
        ),
        pytest.param(
            EulerDiscreteScheduler(prediction_type="sample"),
            "KDPM2DiscreteScheduler",
            {"scheduler": "DPMSolverSinglestepScheduler", "use_karras_sigmas": "yes"},
            id="sample",
        ),
        pytest.param(
            DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": "yes"},
            id="algorithm-of-the-checkpoint",
        ),
    ],
)
def test_ran_sampler_tells_what_the_checkpoint_changed(
    base: SchedulerMixin, name: str, told: dict[str, str]
) -> None:
    asked = spec(name, use_karras_sigmas=True)
    assert ran_sampler(Schedulers(base).make(asked), asked).items() >= told.items()
