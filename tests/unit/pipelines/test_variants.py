"""Which variants of a denoiser there are."""

from types import SimpleNamespace

import pytest
from torch import nn

from serve_app.pipelines.addons import variants
from serve_app.pipelines.addons.variants import Variants


@pytest.mark.parametrize(
    ("denoiser", "ratio", "sees_all", "can_merge"),
    [
        ("unet", 0.5, True, True),
        ("unet", 0.0, True, False),
        ("unet", 0.5, False, False),
        ("transformer", 0.5, True, False),
    ],
)
def test_tokens_of_a_unet_that_sees_all_may_be_merged(
    monkeypatch, denoiser, ratio, sees_all, can_merge
):
    monkeypatch.setattr(variants, "_sees_all", lambda _: sees_all)
    base = SimpleNamespace(**{denoiser: nn.Identity()})
    made = Variants(base, SimpleNamespace(denoiser=denoiser), ratio, None, None, None)
    assert made.can_merge is can_merge
