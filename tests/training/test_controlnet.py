"""The demo ControlNet before its training: it changes nothing, and its pictures show the object."""

import numpy as np
import torch

from training.controlnet import build_controlnet, edges_of, outlined
from training.scene import draw
from training.unet import build_unet


def test_untrained_controlnet_adds_nothing_and_sees_cells_of_16_pixels() -> None:
    torch.manual_seed(0)
    unet = build_unet(4).eval()
    net = build_controlnet(unet).eval()
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 64)
    with torch.no_grad():
        down, middle = net(latents, 500, states, torch.rand(1, 3, 256, 256), return_dict=False)
        added = {
            "down_block_additional_residuals": down,
            "mid_block_additional_residual": middle,
        }
        plain = unet(latents, 500, states, return_dict=False)[0]
        controlled = unet(latents, 500, states, **added, return_dict=False)[0]
    assert torch.equal(plain, controlled)
    assert sum(weight.numel() for weight in net.parameters()) * 2 < 4e6, "4 MB in half precision"


def test_edges_follow_the_object_and_not_the_shading() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        _, scene = outlined(rng)
        (item,) = scene.items
        ys, xs = np.nonzero(edges_of(draw(scene, 256))[..., 0])
        assert len(ys) > 50
        reach = 256 * item.radius * 1.6 + 4  # a diagonal of its box, and its shadow
        assert np.abs(ys - 256 * item.centre_y).max() < reach
        assert np.abs(xs - 256 * item.centre_x).max() < reach
