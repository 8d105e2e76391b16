"""The training machinery: resumed runs, kept pools, the fold of the mask."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from training.diffusion import stratified_timesteps
from training.latents import LatentPool, PoolSpec
from training.loop import Plan, World, autocast, fit
from training.mask import random_task
from training.paths import budget
from training.unet import build_unet, fold_mask
from training.vae import build

_LEVELS = 16, 16  # height, width of the latents


def _fit(plan: Plan, folder: Path) -> torch.Tensor:
    """Trains four weights towards their step's number."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 1, bias=False)

    def loss_of(step: int) -> torch.Tensor:
        return (module.weight - step).square().mean()

    fit(module, loss_of, plan, folder, World())
    return module.weight.detach()


def test_fit_resumed_takes_the_same_steps(tmp_path: Path) -> None:
    plan = partial(Plan, "line", learning_rate=0.1, num_warmup=2, flat_share=0.5)
    whole = _fit(plan(num_steps=8), tmp_path / "whole")
    # Stopped within the flat part, where a planned length does not matter yet.
    _fit(plan(num_steps=4, flat_share=0.99), tmp_path / "parts")
    assert _fit(plan(num_steps=8), tmp_path / "parts").equal(whole)


def test_autocast_on_a_cpu_stays_in_float32() -> None:
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_latent_pool_is_read_back_from_its_file(tmp_path: Path) -> None:
    make = partial(LatentPool.make, tmp_path / "pool.pt", build(5), random_task)
    first = make(PoolSpec(2, [1])).batch(4, np.random.default_rng(0))
    again = make(PoolSpec(2, [2])).batch(4, np.random.default_rng(0))
    assert again.latents.equal(first.latents)
    assert again.captions == first.captions
    assert first.context.shape == (4, 5, *_LEVELS)


def test_latent_pool_of_another_size_has_latents_of_that_size(tmp_path: Path) -> None:
    pool = LatentPool.make(tmp_path / "pool.pt", build(5), random_task, PoolSpec(2, [1], 512))
    assert pool.batch(3, np.random.default_rng(0)).latents.shape == (3, 4, 32, 32)


@pytest.mark.parametrize(
    ("side", "first", "last"),
    [pytest.param(16, 150, 800, id="256"), pytest.param(32, 250, 920, id="512")],
)
def test_stratified_timesteps_most_decide_on_shapes(side: int, first: int, last: int) -> None:
    steps = stratified_timesteps(400, torch.Generator().manual_seed(0), side)
    inside = ((steps >= first) & (steps < last)).float().mean()
    elsewhere = 0.25 * (last - first) / 1000
    assert inside == pytest.approx(0.75 + elsewhere, abs=0.01)
    assert 0 <= steps.min() < steps.max() < 1000


@torch.no_grad()
def test_fold_mask_equals_a_mask_over_everything() -> None:
    unet, grey, noisy = build_unet(9), torch.randn(4), torch.randn(1, 4, *_LEVELS)
    constant = torch.cat([torch.ones(1), grey])[None, :, None, None].expand(1, 5, *_LEVELS)
    full = unet.conv_in(torch.cat([noisy, constant], 1))
    folded = fold_mask(unet, grey).conv_in(noisy)
    # The border differs: a constant input is padded with zeros, a bias is not.
    torch.testing.assert_close(folded[..., 1:-1, 1:-1], full[..., 1:-1, 1:-1])


def test_trial_takes_a_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMSERVE_TRAINING_TRIAL", "1")
    _fit(Plan("line", 1000, 0.1), tmp_path)
    assert torch.load(tmp_path / "line.pt", weights_only=True)["done"] == budget(1000) == 4
