"""The demo ControlNet before its training: it changes nothing, and its pictures show the object."""

import numpy as np
import torch

from training.controlnet import build_controlnet, edges_of, outlined
from training.outlines import faithfulness, make_outlines, overlap
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


def test_overlap_of_drawn_pictures_is_nearly_one_and_of_others_low() -> None:
    first, second = make_outlines(2, 5)
    assert overlap(first.drawn, first.item) > 0.9
    assert overlap(second.drawn, second.item) > 0.9
    assert overlap(second.drawn, first.item) < 0.8
    assert overlap(np.full_like(first.drawn, 90), first.item) == 0.0


def test_faithfulness_counts_colours_and_hearts() -> None:
    hearts = make_outlines(3, 6, "heart")
    assert all("heart" in outline.prompt for outline in hearts)
    right = faithfulness(hearts, [outline.drawn for outline in hearts])
    assert (right.colour, right.hearts) == (1.0, 1.0)
    assert right.overlap > 0.9
    other = faithfulness(hearts[:1], [np.full_like(hearts[0].drawn, 90)])
    assert (other.overlap, other.colour, other.hearts) == (0.0, 0.0, 0.0)
