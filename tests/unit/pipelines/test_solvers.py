"""The corrected classes equal diffusers' own where those are right, on a denoiser like any other.

Stock on the first 500 of 1000 timesteps calls the denoiser at the same ones as image to image from
the middle, and for it the first of them is the first; so it is with the last 2 steps, and the last.
"""

import diffusers
import pytest
import torch

from serve_app.pipelines.samplers.solvers import SOLVERS

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
STEPS = 10


def predict(sample: torch.Tensor, timestep: object) -> torch.Tensor:
    """Something that bends with sample and time."""
    return torch.tanh(sample) + torch.cos(sample * float(timestep) / 300)


def run(scheduler, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    for timestep in timesteps:
        predicted = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    return latents


@pytest.fixture
def start() -> torch.Tensor:
    return torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("left", [5, 2, 1])
@pytest.mark.parametrize("name", ["PNDMScheduler", "LMSDiscreteScheduler"])
def test_image_to_image_equals_stock_on_the_shorter_schedule(
    name: str, left: int, start: torch.Tensor
) -> None:
    options = LEADING | ({"skip_prk_steps": True} if name == "PNDMScheduler" else {})
    whole, skipped = SOLVERS[name](**BETAS, **options), STEPS - left
    if name == "PNDMScheduler":
        whole.skipped = skipped
    whole.set_timesteps(STEPS)
    if name != "PNDMScheduler":
        whole.set_begin_index(skipped)
    betas = whole.betas[: 100 * left].tolist()
    short = getattr(diffusers, name)(trained_betas=betas, num_train_timesteps=len(betas), **options)
    short.set_timesteps(left)
    assert whole.timesteps[skipped:].tolist() == short.timesteps.tolist()
    found = run(whole, start, whole.timesteps[skipped:])
    torch.testing.assert_close(found, run(short, start, short.timesteps), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_text_to_image_equals_stock(name: str, start: torch.Tensor) -> None:
    options = LEADING | {"skip_prk_steps": True, "clip_sample": False}
    both = []
    for cls in (SOLVERS[name], getattr(diffusers, name)):
        scheduler = cls.from_config(BETAS | options)
        scheduler.set_timesteps(STEPS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            both.append(run(scheduler, start, scheduler.timesteps))
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)


def test_pndm_of_velocities_equals_pndm_of_the_same_noises(start: torch.Tensor) -> None:
    options = BETAS | LEADING | {"skip_prk_steps": True}
    noises = diffusers.PNDMScheduler(**options)
    velocities = SOLVERS["PNDMScheduler"](**options, prediction_type="v_prediction")
    results = []
    for scheduler in (noises, velocities):
        scheduler.set_timesteps(STEPS)
        latents = start
        for timestep in scheduler.timesteps:
            predicted = predict(latents, timestep)
            if scheduler is velocities:
                signal = scheduler.alphas_cumprod[timestep]
                predicted = (predicted - (1 - signal) ** 0.5 * latents) / signal**0.5
            latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        results.append(latents)
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


def last_signal(betas: list[float], least: float) -> list[float]:
    """Return betas whose last one leaves so little signal."""
    *others, _ = betas
    return [*others, 1 - least / float(torch.tensor(others).double().neg().add(1).prod())]


@pytest.mark.parametrize(
    ("betas", "least"),
    [
        pytest.param(torch.linspace(1e-4, 0.02, 1000).tolist(), 2**-24, id="half-way"),
        pytest.param([0.0036, 0.0, 0.0, 1.0], 1 / (1 + 1e6), id="end"),
    ],
)
def test_level_that_rounding_loses_in_kdpm2_ancestral_is_the_next_one(
    betas: list[float], least: float
) -> None:
    """Its step ends at next**2 / this, so half way there, on a logarithmic scale, is the next."""
    name = "KDPM2AncestralDiscreteScheduler"
    steep = {"trained_betas": last_signal(betas, least), "num_train_timesteps": len(betas)}
    ours, stock = (cls(**steep) for cls in (SOLVERS[name], getattr(diffusers, name)))
    for scheduler in (ours, stock):
        scheduler.set_timesteps(2)
    first, following = ours.sigmas[:2].tolist()
    assert first > 1e4 * following > 0
    assert stock.timesteps.isnan().tolist() == [False, True, False]
    assert ours.timesteps.tolist() == [len(betas) - 1, 0, 0]
    assert ours.sigmas_interpol[0].item() == following
    assert ours.sigmas_down[0].item() == pytest.approx(following**2 / first, abs=1e-6)


def test_class_keeps_name_and_configuration() -> None:
    for name, cls in SOLVERS.items():
        made = cls(beta_end=0.015)
        assert (type(made).__name__, made.config["beta_end"]) == (name, 0.015)
