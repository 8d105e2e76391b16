"""What a step tells of the finished picture, of a sample that is mixed by hand."""

import diffusers
import pytest
import torch

from serve_app.pipelines.estimate import Estimate, seen

PICTURE, NOISE = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(5)).double()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clean(scheduler, sample, prediction, index):
    timestep = scheduler.timesteps[index]
    return Estimate(scheduler, prediction.float(), timestep, sample.float(), index).clean()


def predicted(kind, share, level):
    """By definition, of the sample share * picture + level * noise."""
    return {
        "epsilon": NOISE,
        "v_prediction": share * NOISE - level * PICTURE,
        "sample": PICTURE,
    }[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("name", "is_exploding"),
    [
        ("DDIMScheduler", False),
        ("DDPMScheduler", False),
        ("EulerDiscreteScheduler", True),
        ("EulerAncestralDiscreteScheduler", True),
        ("LMSDiscreteScheduler", True),
        ("DPMSolverMultistepScheduler", False),
        ("UniPCMultistepScheduler", False),
    ],
)
@pytest.mark.parametrize("index", [0, 4, 8])
def test_picture_is_told_from_sample_and_prediction(name, is_exploding, kind, index):
    """Of samplers whose variance explodes the sample is picture + level / share * noise."""
    scheduler = getattr(diffusers, name)(**BETAS, prediction_type=kind)
    scheduler.set_timesteps(10)
    if hasattr(scheduler, "sigmas"):
        ratio = float(scheduler.sigmas[index])
        share = (1 + ratio**2) ** -0.5
    else:
        share = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])]) ** 0.5
    level = (1 - share**2) ** 0.5
    sample = share * PICTURE + level * NOISE
    sample = sample / share if is_exploding else sample
    found = clean(scheduler, sample, predicted(kind, share, level), index)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, PICTURE.float(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("index", [0, 3, 5])
def test_picture_is_told_by_flow_matching(index):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    level = float(scheduler.sigmas[index])
    sample = (1 - level) * PICTURE + level * NOISE
    found = clean(scheduler, sample, NOISE - PICTURE, index)
    torch.testing.assert_close(found, PICTURE.float(), atol=1e-4, rtol=1e-4)


def test_picture_is_told_by_edm():
    """Karras et al. 2022, table 1: what the network gives is scaled by the level of noise."""
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5)
    scheduler.set_timesteps(6)
    level = float(scheduler.sigmas[2])
    sample = PICTURE + level * NOISE
    spread = (level**2 + 0.5**2) ** 0.5
    network = (PICTURE - 0.5**2 / spread**2 * sample) / (level * 0.5 / spread)
    found = clean(scheduler, sample, network, 2)
    torch.testing.assert_close(found, PICTURE.float(), atol=1e-3, rtol=1e-3)


def test_picture_of_no_signal_is_numbers():
    base = diffusers.DDIMScheduler(
        **BETAS, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    base.set_timesteps(4)
    assert base.alphas_cumprod[int(base.timesteps[0])] < 1e-7
    found = clean(base, NOISE + 1e-4 * PICTURE, NOISE, 0)
    torch.testing.assert_close(found, PICTURE.float(), atol=5e-3, rtol=5e-3)
    assert clean(base, NOISE, NOISE * torch.inf, 0).isfinite().all()


@pytest.mark.parametrize(
    ("name", "calls", "indices"),
    [
        ("EulerDiscreteScheduler", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("DDIMScheduler", [0, 1, 2, 3], [0, 0, 0, 0]),  # which keeps no count
        ("HeunDiscreteScheduler", [0, 2, 4, 6], [0, 2, 4, 6]),
    ],
)
def test_each_step_is_shown_once_and_refinements_are_not(name, calls, indices):
    scheduler = getattr(diffusers, name)(**BETAS)
    scheduler.set_timesteps(4)
    shown, given, sample = [], [], PICTURE.float()
    with seen(scheduler, shown.append):
        for timestep in scheduler.timesteps:
            given.append((torch.tanh(sample), timestep, sample))
            sample = scheduler.step(*given[-1], return_dict=False)[0]
    assert "step" not in vars(scheduler)
    assert [one.index for one in shown] == indices
    for call, one in zip(calls, shown, strict=True):
        told = (one.prediction, one.timestep, one.sample)
        assert all(mine is own for mine, own in zip(told, given[call], strict=True))
        assert one.scheduler is scheduler


def test_watcher_of_a_step_is_gone_after_a_failure():
    scheduler = diffusers.DDIMScheduler()
    with pytest.raises(ZeroDivisionError), seen(scheduler, print):
        raise ZeroDivisionError
    assert "step" not in vars(scheduler)
