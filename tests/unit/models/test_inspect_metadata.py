"""What trainers write in the header of a file, and what hostile ones may."""

import json

import pytest

from serve_app.models.inspect import Family, Prediction, inspect
from tests import community_files

SD1, SD2, XL, REFINER, SD3, FLUX = Family
LAYERS = {"mid_block.attentions.0.proj_in": (1280, 1280)}  # of no certain family


@pytest.fixture
def said(tmp_path):
    """What is found in a small LoRA, or in another file, whose header says this."""

    def said(metadata, shapes=None, **values):
        shapes = community_files.kohya(LAYERS, has_alpha=False) if shapes is None else shapes
        file = tmp_path / "x.safetensors"
        return inspect(community_files.write(file, shapes, metadata=metadata, values=values))

    return said


@pytest.mark.parametrize(
    ("metadata", "families"),
    [
        ({}, ()),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, (SD1,)),
        ({"modelspec.architecture": "Stable-Diffusion-XL-v1-base/lora"}, (XL,)),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-refiner"}, (REFINER,)),
        ({"modelspec.architecture": "Flux.1-dev/lora"}, (FLUX,)),
        ({"ss_base_model_version": "sd_v2_v"}, (SD2,)),
        ({"ss_base_model_version": "sd3_m"}, (SD3,)),
        ({"ss_v2": "True"}, (SD2,)),
        ({"ss_v2": "False"}, ()),
        ({"ss_base_model_version": "something of next year"}, ()),
    ],
)
def test_header_tells_the_family_where_shapes_do_not(said, metadata, families):
    assert said(metadata).families == families


def test_header_chooses_among_what_shapes_allow_and_no_more(said):
    text = community_files.ADAPTERS["lora-xl-text-only"]()
    assert said({"ss_base_model_version": "sdxl_base_v1-0"}, text).families == (XL,)
    assert said({"ss_base_model_version": "sd_v1"}, text).families == (XL, SD3)
    vae = community_files.ldm_vae()
    assert said({"modelspec.architecture": "stable-diffusion-v1/vae"}, vae).families == (SD1, SD2)
    assert said({"modelspec.architecture": "stable-diffusion-xl-v1-base"}, vae).families == (XL,)


@pytest.mark.parametrize(
    ("metadata", "prediction", "zero_snr"),
    [
        ({}, None, None),
        ({"modelspec.prediction_type": "v"}, Prediction.V, None),
        ({"modelspec.prediction_type": "epsilon"}, Prediction.EPSILON, None),
        ({"modelspec.predict_key": "v"}, Prediction.V, None),
        ({"modelspec.prediction_type": "nonsense"}, None, None),
        (
            {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
            Prediction.V,
            True,
        ),
        (
            {"ss_v_parameterization": "False", "ss_zero_terminal_snr": "False"},
            Prediction.EPSILON,
            False,
        ),
    ],
)
def test_header_tells_what_the_denoiser_predicts(said, metadata, prediction, zero_snr):
    for shapes in (None, community_files.ldm_unet()):
        found = said(metadata, shapes)
        assert (found.prediction, found.zero_snr) == (prediction, zero_snr)


def test_marks_among_the_tensors_win_over_the_header(said):
    marked = community_files.ldm_unet() | {"v_pred": (), "ztsnr": ()}
    found = said({"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "False"}, marked)
    assert (found.prediction, found.zero_snr) == (Prediction.V, True)


def test_alpha_of_tensors_wins_over_the_header(said):
    name = "lora_unet_mid_block_attentions_0_proj_in.alpha"
    assert said({"ss_network_alpha": "4"}).alpha == 4
    assert said({"ss_network_alpha": "4"}, **{name: 2.5}).alpha == 2.5
    peft = {"lora_adapter_metadata": json.dumps({"unet.r": 8, "unet.lora_alpha": 32})}
    assert said(peft).alpha == 32
    assert said({}).alpha is None
    assert said({"ss_network_alpha": "4"}, **{name: float("nan")}).alpha == 4
    for nonsense in ("inf", "nan", "None", "9" * 5000):
        assert said({"ss_network_alpha": nonsense}).alpha is None


def test_trigger_words_are_the_phrase_or_the_commonest_tags(said):
    tags = {"10_cat": {"cat": 7, "1girl": 3}, "5_more": {"1girl": 9, "sofa ": 1}}
    counted = {"ss_tag_frequency": json.dumps(tags)}
    assert said(counted).trigger_words == ("1girl", "cat", "sofa")
    assert said(counted | {"modelspec.trigger_phrase": "ohwx"}).trigger_words == ("ohwx",)
    many = {"ss_tag_frequency": json.dumps({"a": {f"t{n}": 100 - n for n in range(99)}})}
    assert said(many).trigger_words == tuple(f"t{n}" for n in range(10))


def test_name_is_the_title_or_the_output_of_training(said):
    assert said({"ss_output_name": "my_lora"}).name == "my_lora"
    assert said({"ss_output_name": "my_lora", "modelspec.title": "Mine"}).name == "Mine"
    assert said({"modelspec.title": " \n "}).name is None


@pytest.mark.parametrize(
    "value",
    ["", "null", "[]", "7", "{", "[" * 100_000, '{"a": [1]}', '{"a": {"b": "c"}}', '{"a": 1e999}'],
)
def test_header_full_of_nonsense_is_no_error(said, value):
    keys = [
        "ss_tag_frequency", "lora_adapter_metadata", "ss_network_alpha", "modelspec.title",
        "modelspec.architecture", "modelspec.prediction_type", "ss_v2", "ss_zero_terminal_snr",
    ]  # fmt: skip
    found = said(dict.fromkeys(keys, value))
    assert found.families == ()
    assert found.trigger_words == ()


def test_texts_of_strangers_are_lines_that_can_be_printed(said):
    found = said({"modelspec.title": "a\x1b[31m\nb" + "x" * 1000, "modelspec.trigger_phrase": "\0"})
    assert found.name.startswith("a [31m b")
    assert len(found.name) <= 128
    assert found.trigger_words == ()
    assert found.describe().isprintable()


def test_metadata_that_is_no_object_of_texts_is_left_out(said, tmp_path):
    file = community_files.write(tmp_path / "y.safetensors", {"a": (768,)}, metadata=["x"])
    assert inspect(file).name is None
    assert said({"modelspec.title": 7}).name is None


@pytest.mark.parametrize(
    ("architecture", "variant"),
    [
        (None, "schnell"),
        ("flux-1-schnell", "schnell"),
        ("Flux-1-dev", "dev without guidance"),
    ],
    ids=["untold", "schnell", "dev"],
)
def test_flux_without_guidance_is_schnell_unless_its_header_says_dev(
    tmp_path, architecture, variant
):
    said = None if architecture is None else {"modelspec.architecture": architecture}
    file = community_files.write_named(tmp_path, "flux-schnell", metadata=said)
    assert inspect(file).variant == variant
