"""Soft masks between the steps, by the definition of differential diffusion, without a model."""

import numpy as np
import pytest
import torch
from PIL import Image

from serve_app.pipelines import soft_mask
from serve_app.pipelines.soft_mask import SoftMask

SHADES = np.array([[0, 64, 128, 255]] * 2, np.uint8).repeat(8, 0).repeat(8, 1)  # 2 x 4 cells
ORIGINAL, NOISE, LATENTS = (torch.full((1, 4, 2, 4), value) for value in (1.0, 100.0, 7.0))


class Scheduler:
    """Adds a hundredth of the noise for each timestep."""

    timesteps = torch.tensor([90, 80, 70, 60, 50, 40])

    def add_noise(self, original, noise, timestep):
        assert timestep.shape == (1,)
        return original + noise * timestep / 100


class FlowScheduler:
    timesteps = Scheduler.timesteps

    def scale_noise(self, original, timestep, noise):
        return original + noise * timestep / 100


class Pipeline:
    """Four of six steps run; `prepare_latents` gives latents and noise, some the original too."""

    vae_scale_factor, num_timesteps = 8, 4

    def __init__(self, scheduler=None, num_outputs=3):
        self.scheduler = scheduler or Scheduler()
        self.num_outputs, self.encoded = num_outputs, []

    def prepare_latents(self, *args, **kwargs):
        given = [*args, *kwargs.values()]
        torch.rand(9, generator=next(one for one in given if isinstance(one, torch.Generator)))
        return (LATENTS, NOISE, ORIGINAL)[: self.num_outputs]

    def _encode_vae_image(self, image, generator):
        self.encoded.append((image, float(torch.rand(1, generator=generator))))
        return ORIGINAL

    def _pack_latents(self, latents, rows, channels, height, width):
        folded = latents.reshape(rows, channels, height // 2, 2, width // 2, 2)
        return folded.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * 4)


def begun(pipeline):
    mask = SoftMask(pipeline, Image.fromarray(SHADES))
    generator = torch.Generator().manual_seed(3)
    image = torch.ones(1, dtype=torch.float64)
    outputs = pipeline.prepare_latents("batch", torch.tensor([70.0]), generator, image=image)
    assert "prepare_latents" not in vars(pipeline), "it would keep the pipeline alive"
    return mask, outputs


@pytest.mark.parametrize("scheduler", [Scheduler(), FlowScheduler()])
def test_place_of_the_shade_v_takes_part_from_step_n_times_1_minus_v_on(scheduler):
    """Of four steps black in none, a quarter in the last, a half in two, white in all."""
    pipeline = Pipeline(scheduler)
    mask, (latents, noise, original) = begun(pipeline)
    assert (noise is NOISE, original is ORIGINAL) == (True, True)
    found = [latents, *(mask.after(pipeline, step, LATENTS) for step in range(3))]
    held = [1 + time for time in (70, 60, 50, 40)]  # original and noise
    assert [one[0, 3, 1].tolist() for one in found] == [
        [held[0], held[0], held[0], 7],
        [held[1], held[1], held[1], 7],
        [held[2], held[2], 7, 7],
        [held[3], 7, 7, 7],
    ]
    assert mask.after(pipeline, 3, LATENTS) is LATENTS, "nothing follows the last step"


def test_original_that_no_output_holds_is_encoded_with_the_same_randomness():
    pipeline = Pipeline(num_outputs=2)
    mask, _ = begun(pipeline)
    ((image, drawn),) = pipeline.encoded
    assert image.dtype == LATENTS.dtype
    assert drawn == float(torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert mask.after(pipeline, 0, LATENTS)[0, 0, 0, 0] == 61


def test_place_whose_turn_comes_with_a_step_takes_part_in_it():
    pipeline = Pipeline()
    pipeline.num_timesteps = 5
    mask = SoftMask(pipeline, Image.new("L", (8, 8), 204))  # four fifths
    generator = torch.Generator().manual_seed(3)
    latents, *_ = pipeline.prepare_latents("batch", torch.tensor([80.0]), generator, image=None)
    assert latents[0, 0, 0, 0] == 81
    assert mask.after(pipeline, 0, LATENTS)[0, 0, 0, 0] == 7


def test_packed_latents_are_held_where_their_cells_are():
    """Of the two by two cells of a token each has its own shade."""
    pipeline = Pipeline()
    cells = 1 - torch.from_numpy(SHADES[::8, ::8] / 255)[None, None]
    latents = pipeline._pack_latents(LATENTS, 1, 4, 2, 4)
    assert latents.shape == (1, 2, 16)
    laid = soft_mask._like(pipeline, cells, latents)
    assert laid.shape == latents.shape
    for channel in range(4):
        left, right = laid[0, :, 4 * channel : 4 * channel + 4].tolist()
        assert left == pytest.approx([1, 1 - 64 / 255] * 2)
        assert right == pytest.approx([1 - 128 / 255, 0] * 2)
