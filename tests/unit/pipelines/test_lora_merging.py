"""Layers with weights of each group's own equal the layer with changed weights, group by group."""

from itertools import product

import pytest
import torch
from torch import nn

from serve_app.pipelines.addons import lora_merging
from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_merging import MergeBudget, Merging, SiblingLayers
from serve_app.pipelines.addons.lora_products import GroupedPair
from serve_app.pipelines.addons.lora_set import NO_LORAS, Adapter, LoraSet
from tests.unit.pipelines.test_lora_products import LAYERS, in_shape

GROUPS, ROWS, RANK = 3, 2, 4
LAST, FIRST = torch.channels_last, torch.contiguous_format
A_LOT = 1 << 30


def drawn(layer, grows=False, dtype=torch.float32):
    """Pairs for all groups, as in a batch: parts of matrices that hold other layers' too."""
    inputs = layer.weight[0].numel()
    down = torch.randn(GROUPS, RANK, inputs + 3)[..., 2:-1].to(dtype)
    up = torch.randn(GROUPS, RANK, len(layer.weight) + 4)[..., 1:-3].to(dtype)
    gain = torch.rand(GROUPS, len(layer.weight)) if grows else None
    return GroupedPair(down, up, gain, 0, GROUPS)


def merging(layers, pairs, budget=A_LOT, reached=slice(0, GROUPS)):
    """Forwards of layers that are given the same; which ranges of groups were asked for."""
    asked = []

    def of(groups):
        asked.append((groups.start, groups.stop))
        return [
            GroupedPair(pair.down[groups], pair.up[groups], None, groups.start, GROUPS)
            if pair.gain is None
            else pair
            for pair in pairs
        ]

    made = Merging(SiblingLayers(layers), of, reached, GROUPS, MergeBudget(budget))
    return made.forwards(), asked


@pytest.mark.parametrize("grows", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("little", [0, A_LOT], ids=["by groups", "by windows"])
@pytest.mark.parametrize(("given", "held"), [*product([LAST, FIRST], repeat=2)])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.inference_mode()
def test_rows_equal_those_of_changed_weights(make, given, held, little, grows, monkeypatch):
    monkeypatch.setattr(lora_merging, "_LITTLE", little)
    torch.manual_seed(0)
    layer = make()
    x = torch.randn(GROUPS * ROWS, 7, 6)
    if isinstance(layer, nn.Conv2d):
        layer = layer.to(memory_format=held)
        x = torch.randn(GROUPS * ROWS, 6, 7, 4).contiguous(memory_format=given)
    pair = drawn(layer, grows)
    (forward,), asked = merging([layer], [pair])

    made = forward(x)

    assert asked == [(0, GROUPS)], "it was merged"
    for group in range(GROUPS):
        rows = slice(group * ROWS, (group + 1) * ROWS)
        changed = make()
        changed.load_state_dict(layer.state_dict())
        if pair.gain is not None:
            changed.weight *= (1 + pair.gain[group]).view(-1, *[1] * (layer.weight.ndim - 1))
        changed.weight += in_shape(pair.up[group].T @ pair.down[group], layer.weight)
        torch.testing.assert_close(made[rows], changed(x[rows]), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_weights_are_made_once_and_the_layer_keeps_its_own():
    layers = [nn.Linear(6, 5), nn.Linear(6, 4)]
    before = [layer.weight.clone() for layer in layers]
    forwards, asked = merging(layers, [*map(drawn, layers)])
    x = torch.randn(GROUPS * ROWS, 7, 6)
    first = [forward(x) for forward in forwards]
    again = [forward(x) for forward in forwards]
    assert asked == [(0, GROUPS)]
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, before, (layer.weight for layer in layers)))


WAYS = {  # a layer that is not small, and the least pixels of a row for which merging pays
    "tokens": (lambda: nn.Linear(128, 128), lambda pixels: (pixels, 128), 48),
    "pixels": (lambda: nn.Conv2d(128, 128, 1), lambda pixels: (128, 2, pixels // 2), 48),
    "kernel": (
        lambda: nn.Conv2d(32, 32, 3, padding=1),
        lambda pixels: (32, 2, pixels // 2),
        22,
    ),
}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("make", "shape", "least"), WAYS.values(), ids=WAYS)
@torch.inference_mode()
def test_large_layers_are_merged_where_a_row_has_many_pixels(make, shape, least, rows):
    """Whatever company a row has, so that its picture does not depend on it."""
    layer = make()
    for pixels, is_merged in ((least - 2, False), (least, True)):
        (forward,), asked = merging([layer], [drawn(layer)], reached=slice(1, GROUPS))
        forward(torch.randn(GROUPS * rows, *shape(pixels)))
        assert asked == [(0, GROUPS) if is_merged else (1, GROUPS)]


@torch.inference_mode()
def test_both_ways_are_kept_for_forwards_of_two_sizes():
    layer = nn.Linear(128, 128)
    (forward,), asked = merging([layer], [drawn(layer)])
    many, few = torch.randn(GROUPS, 64, 128), torch.randn(GROUPS, 4, 128)
    for _ in range(3):
        made = forward(many), forward(few)
    assert sorted(asked) == [(0, GROUPS)] * 2
    torch.testing.assert_close(made[0][:, :4], forward(many[:, :4]), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_weights_stay_within_their_budget():
    layers = [nn.Linear(6, 5), nn.Linear(6, 4)]
    need = GROUPS * (30 + 24) * 4
    x = torch.randn(GROUPS * ROWS, 7, 6)
    pairs = [*map(drawn, layers)]
    enough, asked = merging(layers, pairs, budget=need)
    merged = [forward(x) for forward in enough]
    short, refused = merging(layers, pairs, budget=need - 1, reached=slice(1, GROUPS))
    added = [forward(x) for forward in short]
    assert (asked, refused) == ([(0, GROUPS)], [(1, GROUPS)])
    for one, other in zip(merged, added, strict=True):
        torch.testing.assert_close(one[ROWS:], other[ROWS:], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_layers_share_one_budget():
    budget, asked = MergeBudget(GROUPS * 30 * 4), []
    for name in ("first", "second"):
        layer = nn.Linear(6, 5)

        def of(groups, layer=layer, name=name):
            asked.append((name, groups.start))
            pair = drawn(layer)
            return [GroupedPair(pair.down[groups], pair.up[groups], None, groups.start, GROUPS)]

        made = Merging(SiblingLayers([layer]), of, slice(1, GROUPS), GROUPS, budget)
        made.forwards()[0](torch.randn(GROUPS, 7, 6))
    assert asked == [("first", 0), ("second", 1)]


@torch.inference_mode()
def test_padding_that_is_only_named_is_left_to_the_layer():
    layer = nn.Conv2d(6, 5, 3, padding="same")
    (forward,), asked = merging([layer], [drawn(layer)], reached=slice(1, GROUPS))
    forward(torch.randn(GROUPS, 6, 7, 4))
    assert asked == [(1, GROUPS)]


@pytest.fixture
def layer():
    return nn.Sequential(nn.Linear(8, 8)).requires_grad_(False)


def use(layers, number, pair, strength=1.0):
    adapter = Adapter(str(number), str(number), {"unet": layers.packed({"0": pair})})
    return LoraSet(number, ((adapter, strength),))


def is_merged(layers):
    (own,) = layers._changed
    return bool(own.__dict__["forward"].func.__self__._merged)


@torch.inference_mode()
def test_other_sets_mean_other_weights(layer):
    """Also where they change the same layers, in as many groups, one after another."""
    layers = LoraLayers("unet", layer, merge_bytes=A_LOT)
    pairs = [Pair(torch.randn(4, 8), torch.randn(8, 4)) for _ in range(2)]
    sets = [use(layers, number + 1, pair) for number, pair in enumerate(pairs)]
    half = LoraSet(3, ((sets[0].uses[0][0], 0.5),))
    x, weight, bias = torch.randn(2, 5, 8), layer[0].weight, layer[0].bias
    products = {0: torch.zeros(8, 8), 3: 0.5 * pairs[0].up @ pairs[0].down}
    products |= {number + 1: pair.up @ pair.down for number, pair in enumerate(pairs)}
    for own in ((sets[0], sets[1]), (sets[1], sets[0]), (half, NO_LORAS), (NO_LORAS, half)):
        layers.apply(own)
        made = layer(x)
        assert is_merged(layers)
        for row, one in enumerate(own):
            expected = nn.functional.linear(x[row], weight + products[one.number], bias)
            torch.testing.assert_close(made[row], expected, rtol=1e-4, atol=1e-4)
    layers.apply(())
    assert torch.equal(layer(x), nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize(("strength", "expected"), [(1.0, True), (-6.0, False)])
@torch.inference_mode()
def test_weights_whose_numbers_might_overflow_are_not_merged(layer, strength, expected):
    """32,752 is half of what float16 has; 4 * 37 * 37 is within it, six times that is not."""
    layers = LoraLayers("unet", layer.half(), merge_bytes=A_LOT)
    pair = Pair(torch.full((4, 8), 37.0), torch.full((8, 4), 37.0))
    layers.apply((use(layers, 1, pair, strength),))
    layer(torch.randn(1, 5, 8, dtype=torch.float16))
    assert is_merged(layers) is expected


@pytest.mark.parametrize(("spare", "expected"), [(0, True), (-1, False)])
@torch.inference_mode()
def test_matrices_of_the_sets_come_first(layer, spare, expected):
    layers = LoraLayers("unet", layer)
    own = use(layers, 1, Pair(torch.randn(4, 8), torch.randn(8, 4)))
    room = layers.num_bytes((own,)) + layer[0].weight.nbytes
    layers = LoraLayers("unet", layer, merge_bytes=room + spare)
    layers.apply((own,))
    layer(torch.randn(1, 5, 8))
    assert is_merged(layers) is expected
