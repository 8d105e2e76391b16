"""What some pipelines leave out beside a VAE, made good by the numbers of its config."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from serve_app.pipelines.latent_scale import complete

MEANS, DEVIATIONS = [1.0, -2.0, 0.5, 4.0], [2.0, 0.5, 4.0, 1.0]


class Latents:
    def __init__(self):
        self.mean, self.std = torch.full((1, 4, 2, 2), 6.0), torch.full((1, 4, 2, 2), 8.0)


class Vae:
    def __init__(self, mean=None, deviation=None, shift=None):
        self.config = SimpleNamespace(
            latents_mean=mean, latents_std=deviation, shift_factor=shift, scaling_factor=0.5
        )

    def encode(self, pixels):
        return SimpleNamespace(latent_dist=Latents())

    def decode(self, latents, return_dict=True):
        return latents, return_dict


def by_channel(values):
    return torch.tensor(values).view(1, 4, 1, 1).expand(1, 4, 2, 2)


@pytest.mark.parametrize(
    ("name", "encodes", "decodes"),
    [
        ("StableDiffusionXLPipeline", False, False),
        ("StableDiffusionXLInpaintPipeline", True, False),
        ("StableDiffusionXLControlNetInpaintPipeline", True, True),
        ("StableDiffusion3InpaintPipeline", False, True),
    ],
)
def test_what_a_pipeline_forgets_is_done_and_nothing_twice(name, encodes, decodes):
    vae = Vae(MEANS, DEVIATIONS)
    complete(vae, getattr(diffusers, name))
    found = vae.encode(torch.zeros(1)).latent_dist
    mean, deviation = by_channel(MEANS), by_channel(DEVIATIONS)
    assert found.mean.equal((6 - mean) / deviation if encodes else Latents().mean)
    assert found.std.equal(8 / deviation if encodes else Latents().std)
    latents, is_dict = vae.decode(torch.full((1, 4, 2, 2), 3.0), return_dict=False)
    assert latents.equal(3 * deviation + mean if decodes else torch.full((1, 4, 2, 2), 3.0))
    assert is_dict is False


def test_shift_of_all_channels_is_added_when_sd3_inpaints():
    vae = Vae(shift=0.25)
    complete(vae, diffusers.StableDiffusion3InpaintPipeline)
    assert vae.decode(torch.ones(1, 4, 2, 2))[0].equal(torch.full((1, 4, 2, 2), 1.25))


@pytest.mark.parametrize("vae", [Vae(), Vae(mean=MEANS), Vae(deviation=DEVIATIONS), Vae(shift=0.0)])
def test_vae_whose_latents_are_around_0_stays_as_it_is(vae):
    complete(vae, diffusers.StableDiffusionXLControlNetInpaintPipeline)
    assert set(vars(vae)) == {"config"}
