"""Layers with weights of each group's own equal the layer with changed weights, group by group."""

import gc
import weakref
from itertools import product

import pytest
import torch
from torch import nn

from serve_app.pipelines.addons import lora_merging
from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_merging import Merging, SiblingLayers
from serve_app.pipelines.addons.lora_products import GroupedPair
from serve_app.pipelines.addons.lora_set import NO_LORAS, Adapter, LoraSet
from tests.unit.pipelines.test_lora_products import LAYERS, with_pair

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


def merging(layers, pairs, has_room=True, reached=slice(0, GROUPS)):
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

    made = Merging(SiblingLayers(layers), of, reached, GROUPS, has_room)
    return made.forwards(), asked


@pytest.mark.parametrize("grows", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("little", [0, A_LOT], ids=["by groups", "by windows"])
@pytest.mark.parametrize(("given", "held"), [*product([LAST, FIRST], repeat=2)])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.inference_mode()
def test_rows_equal_those_of_changed_weights(make, given, held, little, grows, monkeypatch):
    monkeypatch.setattr(lora_merging, "_MAX_SEEN", little)
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
        gain = None if pair.gain is None else pair.gain[group]
        changed = with_pair(layer, pair.down[group], pair.up[group], gain)
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
    "wide tokens": (lambda: nn.Linear(128, 384), lambda pixels: (pixels, 128), 72),
    "pixels": (lambda: nn.Conv2d(128, 128, 1), lambda pixels: (128, 2, pixels // 2), 48),
    "kernel": (
        lambda: nn.Conv2d(32, 32, 3, padding=1),
        lambda pixels: (32, 2, pixels // 2),
        36,
    ),
}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("make", "shape", "least"), WAYS.values(), ids=WAYS)
@torch.inference_mode()
def test_large_layers_are_merged_where_a_row_has_many_pixels(make, shape, least, rows):
    """However many rows there are."""
    layer = make()
    for pixels, is_merged in ((least - 2, False), (least, True)):
        (forward,), asked = merging([layer], [drawn(layer)])
        forward(torch.randn(GROUPS * rows, *shape(pixels)))
        assert bool(forward.func.__self__._merged) is is_merged
        assert asked == [(0, GROUPS)]


@pytest.mark.parametrize(("reached", "expected"), [(slice(0, 3), True), (slice(1, 3), False)])
@torch.inference_mode()
def test_rows_without_products_do_not_speak_for_merging(reached, expected):
    layer = nn.Linear(128, 128)
    (forward,), asked = merging([layer], [drawn(layer)], reached=reached)
    forward(torch.randn(GROUPS, 48, 128))
    assert bool(forward.func.__self__._merged) is expected
    assert asked == [(0, GROUPS) if expected else (1, GROUPS)]


@pytest.mark.parametrize(("outputs", "expected"), [((64, 64), True), ((64, 65), False)])
@torch.inference_mode()
def test_small_layers_are_merged_for_one_pixel(outputs, expected):
    """8,192 weights; siblings are merged together or not at all."""
    layers = [nn.Linear(128, own) for own in outputs]
    forwards, _ = merging(layers, [*map(drawn, layers)], reached=slice(1, GROUPS))
    for forward in forwards:
        forward(torch.randn(GROUPS, 1, 128))
    assert bool(forwards[0].func.__self__._merged) is expected


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(("side", "expected"), [(5, ["windows"]), (6, ["groups"])])
@torch.inference_mode()
def test_kernels_see_windows_where_a_row_is_little(side, expected, rows, monkeypatch):
    """4,096 numbers: 16 channels of 5 x 5 pixels, nine times; however many rows there are."""
    went = []
    for name in ("windows", "groups"):
        run = getattr(lora_merging, f"_by_{name}")
        monkeypatch.setattr(
            lora_merging,
            f"_by_{name}",
            lambda *given, name=name, run=run: went.append(name) or run(*given),
        )
    layer = nn.Conv2d(16, 16, 3, padding=1)
    (forward,), _ = merging([layer], [drawn(layer)])
    forward(torch.randn(GROUPS * rows, 16, side, side))
    assert went == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_weights_of_half_precision_are_not_merged(dtype):
    layer = nn.Linear(6, 5).to(dtype)
    (forward,), asked = merging([layer], [drawn(layer, dtype=dtype)], reached=slice(1, GROUPS))
    forward(torch.randn(GROUPS, 7, 6, dtype=dtype))
    assert asked == [(1, GROUPS)]


def test_weights_on_a_device_are_not_merged():
    assert not SiblingLayers([nn.Linear(6, 5, device="meta")]).can_merge
    assert not SiblingLayers([nn.Linear(6, 5), nn.Linear(6, 5, device="meta")]).can_merge


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
def test_products_are_added_where_there_is_no_room():
    layers = [nn.Linear(6, 5), nn.Linear(6, 4)]
    x, pairs = torch.randn(GROUPS * ROWS, 7, 6), [*map(drawn, layers)]
    merged, _ = merging(layers, pairs)
    added, asked = merging(layers, pairs, has_room=False, reached=slice(1, GROUPS))
    for one, other in zip(merged, added, strict=True):
        torch.testing.assert_close(one(x)[ROWS:], other(x)[ROWS:], rtol=1e-4, atol=1e-4)
    assert asked == [(1, GROUPS)]


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


def is_merged(layer):
    return bool(layer.__dict__["forward"].func.__self__._merged)


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
        assert is_merged(layer[0])
        for row, one in enumerate(own):
            expected = nn.functional.linear(x[row], weight + products[one.number], bias)
            torch.testing.assert_close(made[row], expected, rtol=1e-4, atol=1e-4)
    layers.apply(())
    assert torch.equal(layer(x), nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize(("room", "expected"), [(0, [1, 1]), (-1, [1, 0]), (-513, [0, 0])])
@torch.inference_mode()
def test_matrices_come_first_and_then_the_smallest_layers(room, expected):
    """Whichever of them runs first, and whatever ran before."""
    layers = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).requires_grad_(False)
    packing = LoraLayers("unet", layers)
    pairs = {
        str(number): Pair(torch.randn(4, own.in_features), torch.randn(own.out_features, 4))
        for number, own in enumerate(layers)
    }
    set_ = LoraSet(1, ((Adapter("1", "1", {"unet": packing.packed(pairs)}), 1.0),))
    room += packing.num_bytes((set_,)) + sum(own.weight.nbytes for own in layers)
    made = LoraLayers("unet", layers, merge_bytes=room)
    made.apply((set_,))
    layers(torch.randn(1, 5, 8))
    assert [is_merged(own) for own in reversed(layers)] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_weak_lora_keeps_its_effect(dtype):
    """Of a thousandth of the weights, on what it was trained to look at."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(320, 320)).to(dtype).requires_grad_(False)
    weight, down, up = net[0].weight.double(), torch.randn(8, 320) / 18, torch.randn(320, 8)
    up *= weight.norm() / 1000 / (up @ down).norm()
    seen = torch.randn(1, 256, 8) @ down / down.norm()
    x = (torch.randn(1, 256, 320) + 10 * seen).to(dtype)
    layers = LoraLayers("unet", net, merge_bytes=A_LOT)
    layers.apply((use(layers, 1, Pair(down, up)),))
    plain = nn.functional.linear(x.double(), weight, net[0].bias.double())
    wanted = x.double() @ (up.double() @ down.double()).T
    kept = ((net(x).double() - plain) * wanted).sum() / (wanted * wanted).sum()
    assert float(kept) > 0.9


@torch.inference_mode()
def test_layers_are_freed_with_whoever_holds_them():
    layers = LoraLayers("unet", nn.Sequential(nn.Linear(8, 8)), merge_bytes=A_LOT)
    layers.apply((use(layers, 1, Pair(torch.randn(4, 8), torch.randn(8, 4))),))
    gone = weakref.ref(layers)
    gc.disable()
    try:
        del layers
        assert gone() is None
    finally:
        gc.enable()
