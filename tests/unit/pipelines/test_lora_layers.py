"""How much of a forward LoRAs touch; what they make of it is tested with pictures."""

from collections import Counter

import pytest
import torch
from torch import nn

from serve_app.pipelines.addons import lora_places
from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_set import NO_LORAS, Adapter, LoraSet
from serve_app.pipelines.addons.loras import Loras
from serve_app.pipelines.addons.misfit import Unfit

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BLOCKS = 4  # one in the lower block, one in the middle, two in the upper


@pytest.fixture
def layers(unet):
    made = LoraLayers("unet", unet)
    yield made
    made.apply(())


def lora(layers, unet, number, names):
    """A set of one LoRA on the layers whose names end in these."""
    pairs = {}
    for name, own in unet.named_modules():
        if isinstance(own, nn.Linear | nn.Conv2d) and name.endswith(names):
            ones = [1] * (own.weight.ndim - 2)
            down, up = torch.randn(4, *own.weight.shape[1:]), torch.randn(len(own.weight), 4, *ones)
            pairs[name] = Pair(down / 4, up / 4)
    adapter = Adapter(str(number), str(number), {"unet": layers.packed(pairs)})
    return LoraSet(number, ((adapter, 1.0),))


def predict(unet, rows):
    rng = torch.Generator().manual_seed(0)
    sample, texts = torch.randn(3, 4, 4, 4, generator=rng), torch.randn(3, 7, 12, generator=rng)
    with torch.inference_mode():
        return unet(sample[rows], torch.full((3,), 500.0)[rows], texts[rows])[0]


def test_what_attention_is_given_is_multiplied_once(unet, layers, products):
    layers.apply((lora(layers, unet, 1, ATTENTION),))
    predict(unet, slice(None))
    # Of each block: queries, keys and values of the picture; queries of the texts; two outputs.
    # All blocks' keys and values of the texts.
    widths = Counter(width for _, _, width in products)
    assert widths == {3 * 8: BLOCKS, 8: 3 * BLOCKS, 2 * BLOCKS * 8: 1}


@torch.inference_mode()
def test_kernels_of_one_channel_are_added_to():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 1, 3)).requires_grad_(False)
    made, x = LoraLayers("unet", net), torch.randn(1, 1, 8, 8)
    pairs = {
        str(number): Pair(torch.randn(2, *own.weight.shape[1:]), torch.randn(len(own.weight), 2))
        for number, own in enumerate(net)
    }
    made.apply((LoraSet(1, ((Adapter("1", "1", {"unet": made.packed(pairs)}), 1.0),)),))
    expected = x
    for own, pair in zip(net, pairs.values(), strict=True):
        added = torch.einsum("or,rchw->ochw", pair.up, pair.down)
        expected = nn.functional.conv2d(expected, own.weight + added, own.bias)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unlike", [{"padding_mode": "circular"}, {"groups": 2}])
def test_convolutions_that_would_be_added_to_wrongly_are_refused(unlike):
    layers = LoraLayers("unet", nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, **unlike)))
    pair = Pair(torch.randn(4, 8 // unlike.get("groups", 1), 3, 3), torch.randn(8, 4, 1, 1))
    with pytest.raises(Unfit, match=r"the layer unet\.0"):
        layers.packed({"0": pair})


def test_layers_are_added_to_where_sets_change_them(unet, layers, monkeypatch):
    sets = [
        NO_LORAS,
        lora(layers, unet, 1, ATTENTION),
        lora(layers, unet, 2, ("conv1", *ATTENTION)),
    ]
    alone = []
    for row, own in enumerate(sets):
        layers.apply((own,))
        alone.append(predict(unet, slice(row, row + 1)))
    reached = Counter()
    pair = lora_places.Place.pair

    def watched(self, batch, groups):
        reached[type(self.layer).__name__, groups.start, groups.stop] += 1
        return pair(self, batch, groups)

    monkeypatch.setattr(lora_places.Place, "pair", watched)
    layers.apply(sets)
    together = predict(unet, slice(None))
    convolutions = sum(name.endswith("conv1") for name, _ in unet.named_modules())
    assert reached == {("Linear", 1, 3): 8 * BLOCKS, ("Conv2d", 2, 3): convolutions}
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert (alone[0] - alone[2]).abs().max() > 1e-3


@torch.inference_mode()
def test_text_encoder_is_its_own_again_after_a_text_however_that_ended():
    net = nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)
    loras, own = object.__new__(Loras), LoraLayers("text_encoder", net)
    loras._denoiser, loras._parts = LoraLayers("unet", nn.Sequential(nn.Linear(1, 1))), {}
    loras._parts |= {"unet": loras._denoiser, "text_encoder": own}
    pair = Pair(torch.randn(4, 8), torch.randn(8, 4))
    chosen = LoraSet(1, ((Adapter("1", "1", {"text_encoder": own.packed({"0": pair})}), 1.0),))
    x = torch.randn(2, 3, 8)
    before = net(x)
    with loras.in_text(chosen):
        torch.testing.assert_close(net(x), before + x @ (pair.up @ pair.down).T)
    assert torch.equal(net(x), before)
    with pytest.raises(ValueError, match="a bad text"), loras.in_text(chosen):
        raise ValueError("a bad text")
    assert torch.equal(net(x), before)
