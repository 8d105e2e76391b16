"""What is added to a layer's rows equals the layer with changed weights, group by group."""

import copy

import pytest
import torch
from torch import nn

from serve_app.pipelines.addons import lora_products
from serve_app.pipelines.addons.lora_products import GroupedPair, adding, adding_together

GROUPS, FIRST, TOTAL = 3, 1, 5  # all but the first and the last are changed
ROWS, RANK = 2, 4
LAYERS = {
    "linear": lambda: nn.Linear(6, 5),
    "linear without a bias": lambda: nn.Linear(6, 5, bias=False),
    "pixels": lambda: nn.Conv2d(6, 5, 1),
    "pixels apart": lambda: nn.Conv2d(6, 5, 1, stride=2),
    "kernel": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "kernel without a bias": lambda: nn.Conv2d(6, 5, 3, padding=1, bias=False),
    "kernel apart": lambda: nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "kernel at a distance": lambda: nn.Conv2d(6, 5, (3, 1), padding=(2, 0), dilation=(2, 1)),
}


def in_shape(products, weight):
    """Products (out, inputs) as weights; channels are last in the inputs of a kernel."""
    return products.view(len(weight), *weight.shape[2:], weight.shape[1]).movedim(-1, 1)


def with_pair(layer, down, up, gain=None):
    """Copy a layer with a pair in its weights."""
    changed = copy.deepcopy(layer)
    if gain is not None:
        changed.weight *= (1 + gain).view(-1, *[1] * (layer.weight.ndim - 1))
    changed.weight += in_shape(up.T @ down, layer.weight)
    return changed


@pytest.mark.parametrize("grows", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(
    "memory_format", [torch.channels_last, torch.contiguous_format], ids=["last", "first"]
)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@torch.inference_mode()
def test_rows_equal_those_of_changed_weights(make, memory_format, grows):
    torch.manual_seed(0)
    layer = make()
    x = torch.randn(TOTAL * ROWS, 7, 6)
    if isinstance(layer, nn.Conv2d):
        layer = layer.to(memory_format=memory_format)
        x = torch.randn(TOTAL * ROWS, 6, 7, 4).contiguous(memory_format=memory_format)
    inputs = layer.weight[0].numel()
    # As in a batch: parts of matrices that hold other layers' too.
    down = torch.randn(GROUPS, RANK, inputs + 3)[..., 2:-1]
    up = torch.randn(GROUPS, RANK, 9)[..., 1:6]
    gain = torch.rand(GROUPS, 9)[:, 1:6] if grows else None

    made = adding(layer, GroupedPair(down, up, gain, FIRST, TOTAL))(x)

    for number in range(TOTAL):
        rows, group = slice(number * ROWS, (number + 1) * ROWS), number - FIRST
        own = layer
        if 0 <= group < GROUPS:
            own = with_pair(layer, down[group], up[group], None if gain is None else gain[group])
        torch.testing.assert_close(made[rows], own(x[rows]), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_layer_with_channels_last_is_added_to_in_its_place():
    """No copy of the output: it is the most memory that a convolution takes."""
    layer = nn.Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(4, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    outputs: list[torch.Tensor] = []
    convolve = layer._conv_forward
    layer._conv_forward = lambda *given: outputs.append(convolve(*given)) or outputs[-1]
    pair = GroupedPair(torch.randn(2, RANK, 72), torch.randn(2, RANK, 8), total=2)
    made = adding(layer, pair)(x)
    assert made is outputs[0]
    assert made.is_contiguous(memory_format=torch.channels_last)


def beside(count):
    """Layers with pairs of their own, and the same computed each by itself."""
    torch.manual_seed(0)
    layers = [nn.Linear(6, 5 + number) for number in range(count)]
    pairs = [
        GroupedPair(
            torch.randn(GROUPS, RANK, 6),
            torch.randn(GROUPS, RANK, layer.out_features),
            first=FIRST,
            total=TOTAL,
        )
        for layer in layers
    ]
    alone = [adding(layer, pair) for layer, pair in zip(layers, pairs, strict=True)]
    return adding_together(layers, pairs), alone


@torch.inference_mode()
def test_layers_that_are_given_the_same_compute_one_product_a_forward(products):
    together, alone = beside(3)
    for _ in range(2):
        x = torch.randn(TOTAL * ROWS, 7, 6)
        made = [forward(x) for forward in together]
        assert products == [(GROUPS, 6, 3 * RANK)]
        for one, forward in zip(made, alone, strict=True):
            torch.testing.assert_close(one, forward(x), rtol=1e-4, atol=1e-5)
        products.clear()


@torch.inference_mode()
def test_layers_that_are_given_other_things_than_was_thought_compute_alone(products):
    together, alone = beside(3)
    for _ in range(2):
        for forward, own in zip(together, alone, strict=True):
            x = torch.randn(TOTAL * ROWS, 7, 6)
            torch.testing.assert_close(forward(x), own(x), rtol=1e-4, atol=1e-5)
    mine = products[::2]
    assert mine == [(GROUPS, 6, 3 * RANK), *[(GROUPS, 6, RANK)] * 5], "no more is done twice"


@torch.inference_mode()
def test_layer_that_is_not_asked_leaves_the_others_right():
    """As where a forward fails half way and others follow."""
    together, alone = beside(2)
    together[0](torch.randn(TOTAL * ROWS, 7, 6))
    x = torch.randn(TOTAL * ROWS, 7, 6)
    for forward, own in zip(together, alone, strict=True):
        torch.testing.assert_close(forward(x), own(x), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_product_that_fails_leaves_nothing_that_the_next_forward_would_take(monkeypatch):
    together, alone = beside(3)
    x = torch.randn(TOTAL * ROWS, 7, 6)
    product = lora_products._product

    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(lora_products, "_product", fail)
    with pytest.raises(torch.OutOfMemoryError):
        together[0](x)
    monkeypatch.setattr(lora_products, "_product", product)
    for forward, own in zip(together, alone, strict=True):
        torch.testing.assert_close(forward(x), own(x), rtol=1e-4, atol=1e-5)
