"""LoRA files in one form: what is added to a layer, by the arithmetic of each way to write it."""

import json
import math

import pytest
import torch

from serve_app.pipelines.addons.lora_file import Pair, read_pairs
from serve_app.pipelines.addons.misfit import Unfit

RANK = 4
DOWN = torch.randn(RANK, 6, generator=torch.Generator().manual_seed(1))
UP = torch.randn(5, RANK, generator=torch.Generator().manual_seed(2))
FLAT = "unet.down_blocks.0.attn1.to_q"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


def as_it_is(tensors):
    return tensors


def peft(layer=FLAT, down=DOWN, up=UP, **more):
    tensors = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    return tensors | {f"{layer}.{name}": tensor for name, tensor in more.items()}


def read(tensors, header=None, convert=as_it_is, **settings):
    """Read a file; settings: of the UNet in the header."""
    if settings:
        said = {f"unet.{name}": value for name, value in settings.items()}
        header = {"lora_adapter_metadata": json.dumps(said)}
    return read_pairs(dict(tensors), header or {}, convert)


def added(pairs, component="unet"):
    (pair,) = pairs[component].values()
    return pair.up @ pair.down


def test_pairs_are_found_by_component_and_layer():
    pairs = read(peft() | peft(TEXT, up=2 * UP))
    assert {name: list(own) for name, own in pairs.items()} == {
        "unet": ["down_blocks.0.attn1.to_q"],
        "text_encoder": ["text_model.encoder.layers.0.self_attn.q_proj"],
    }
    torch.testing.assert_close(added(pairs), UP @ DOWN)
    torch.testing.assert_close(added(pairs, "text_encoder"), 2 * UP @ DOWN)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0, 8.0])
def test_alpha_beside_a_pair_counts_by_its_rank(alpha):
    pairs = read(peft(alpha=torch.tensor(alpha)))
    torch.testing.assert_close(added(pairs), alpha / RANK * UP @ DOWN)


def test_converter_that_scales_by_alpha_itself_finds_nothing_left_to_scale():
    """As diffusers' own, which multiplies by alpha / rank where a file has an alpha."""
    told = []

    def convert(tensors):
        told.append(float(tensors[f"{FLAT}.alpha"]))
        return tensors

    read(peft(alpha=torch.tensor(1.0)), convert=convert)
    assert told == [RANK]


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"lora_alpha": 8}, 2),
        ({"lora_alpha": 8, "r": 99}, 2),
        ({"r": RANK}, 1),
        ({"lora_alpha": 8, "use_rslora": True}, 8 / math.sqrt(RANK)),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"to_k": 2}}, 2),
        ({"lora_alpha": 8, "alpha_pattern": {}, "rank_pattern": {}}, 2),
        ({"lora_alpha": 8, "lora_dropout": 0.5, "task_type": "X", "bias": "none"}, 2),
        ({"lora_alpha": 8, "init_lora_weights": "gaussian"}, 2),
    ],
)
def test_settings_of_the_header_scale_as_peft_does(settings, factor):
    torch.testing.assert_close(added(read(peft(), **settings)), factor * UP @ DOWN)


def test_settings_are_those_of_their_component():
    said = {"unet.lora_alpha": 8, "text_encoder.lora_alpha": 2}
    pairs = read(peft() | peft(TEXT), {"lora_adapter_metadata": json.dumps(said)})
    torch.testing.assert_close(added(pairs), 2 * UP @ DOWN)
    torch.testing.assert_close(added(pairs, "text_encoder"), 0.5 * UP @ DOWN)


@pytest.mark.parametrize("kind", ["dora_scale", "lora_magnitude_vector"])
def test_magnitudes_of_a_dora_come_with_their_pair(kind):
    magnitude = torch.arange(1.0, 6)
    for shape in ((5,), (5, 1), (5, 1, 1, 1)):
        pairs = read(peft(**{kind: magnitude.view(shape)}))
        (pair,) = pairs["unet"].values()
        assert pair.magnitude.tolist() == [1, 2, 3, 4, 5]
    assert read(peft(), use_dora=False)["unet"]["down_blocks.0.attn1.to_q"].magnitude is None


OTHER = FLAT.replace("to_q", "to_k")
NUMBER = torch.tensor(1.0)


def without(name):
    return {key: tensor for key, tensor in peft().items() if name not in key}


@pytest.mark.parametrize(
    ("tensors", "settings", "reason"),
    [
        ({}, {}, "found no tensors, expected pairs of LoRA matrices"),
        (without("lora_A"), {}, f"found half a pair of matrices for {FLAT}, expected both halves"),
        (without("lora_B"), {}, f"found half a pair of matrices for {FLAT}, expected both halves"),
        (
            peft(strange=NUMBER), {},
            f"found the tensor {FLAT}.strange, expected pairs of LoRA matrices",
        ),
        (
            peft(up=UP[:, 1:]), {},
            f"found matrices of the shapes (4, 6) and (5, 3) for {FLAT}, "
            "expected shapes that can be multiplied",
        ),
        (
            peft(down=DOWN[..., None], up=UP[..., None]), {},
            f"found matrices of the shapes (4, 6, 1) and (5, 4, 1) for {FLAT}, "
            "expected shapes that can be multiplied",
        ),
        (
            peft(down=DOWN[..., None, None]), {},
            f"found matrices of the shapes (4, 6, 1, 1) and (5, 4) for {FLAT}, "
            "expected shapes that can be multiplied",
        ),
        (
            peft(alpha=torch.ones(2)), {},
            f"found {FLAT}.alpha of the shape (2,), expected one number",
        ),
        (
            peft(down=DOWN * torch.nan), {},
            f"found NaN or infinity in {FLAT}.lora_A.weight, expected finite numbers",
        ),
        (
            peft(dora_scale=torch.ones(1, 6)), {},
            f"found DoRA magnitudes of the inputs of {FLAT}, "
            "expected DoRA magnitudes of the outputs",
        ),
        (
            peft(dora_scale=torch.ones(5)) | peft(OTHER), {},
            "found DoRA magnitudes for 1 layers, expected for all 2",
        ),
        (peft(), {"use_dora": True}, "found a DoRA without magnitudes, expected DoRA magnitudes"),
        (
            peft(alpha=NUMBER), {"lora_alpha": 8},
            "found alphas both as tensors and in the header, expected one of them",
        ),
        (
            peft(), {"lora_bias": True},
            "found the setting lora_bias: True, expected a plain LoRA or DoRA",
        ),
        (
            peft(), {"init_lora_weights": "pissa"},
            "found the setting init_lora_weights: pissa, expected a plain LoRA or DoRA",
        ),
        (
            peft(), {"lora_alpha": 4, "init_lora_weights": "gaussian", "lora_bias": True},
            "found the setting lora_bias: True, expected a plain LoRA or DoRA",
        ),
        (
            peft(), {"lora_alpha": "much"},
            "found an alpha of down_blocks.0.attn1.to_q that is not a number, expected a number",
        ),
        (peft(), {"lora_alpha": 1, "alpha_pattern": [7]}, "that is not a number"),
        (peft(), {"lora_alpha": 1, "alpha_pattern": {"(": 7}}, "that is not a number"),
    ],
)  # fmt: skip
def test_what_the_form_has_no_place_for_is_refused(tensors, settings, reason):
    with pytest.raises(Unfit) as caught:
        read(tensors, **settings)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["{", "7", "[]", "null"])
def test_header_that_is_no_object_is_refused(text):
    with pytest.raises(Unfit, match="header whose lora_adapter_metadata cannot be read") as caught:
        read(peft(), {"lora_adapter_metadata": text})
    assert caught.value.expected == "a JSON object"


def test_layer_that_a_converter_leaves_out_is_missed():
    def forgetful(tensors):
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(OTHER)}

    with pytest.raises(Unfit) as caught:
        read(peft() | peft(OTHER), convert=forgetful)
    assert str(caught.value) == (
        "found layers that have no place in the model, expected layers that it has"
    )


def test_magnitudes_whose_pair_a_converter_makes_anew_are_missed():
    def anew(tensors):
        return {name: tensor.clone() for name, tensor in tensors.items()}

    with pytest.raises(Unfit, match="DoRA magnitudes in a form of this kind of model"):
        read(peft(dora_scale=torch.ones(5)), convert=anew)


def test_flat_matrices_take_the_shape_of_a_convolution():
    weight = (5, 6, 3, 3)
    down = torch.randn(RANK, 54, generator=torch.Generator().manual_seed(3))
    pair = Pair(down, UP).for_weights(weight)
    assert (pair.down.shape, pair.up.shape) == ((RANK, 6, 3, 3), (5, RANK, 1, 1))
    product = (pair.up.flatten(1) @ pair.down.flatten(1)).view(weight)
    torch.testing.assert_close(product, (UP @ down).view(weight))
    for shape in ((5, 6), (5, 7, 3, 3)):
        assert (same := Pair(DOWN, UP)).for_weights(shape) is same
    shaped = Pair(down.view(RANK, 6, 3, 3), UP[..., None, None])
    assert shaped.for_weights(weight) is shaped
