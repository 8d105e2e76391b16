"""Settings of the published architectures: the models made from them are the published ones."""

import json

import diffusers
import pytest
import transformers
from accelerate import init_empty_weights

from serve_app.models.bases.base import BASES

# Numbers of parameters as published with the weights.
UNETS = {"sd1": 859_520_964, "sd2": 865_910_724, "sdxl": 2_567_463_684}
TRANSFORMERS = {
    "sd3-medium": 2_028_328_000,
    "flux-dev": 11_901_408_320,
    "flux-schnell": 11_891_178_560,
}
TEXT_ENCODERS = {"sd1": 123_060_480, "sd2": 340_387_840, "sdxl": 123_060_480}
SENTENCE = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat", in every description


def num_parameters(base, part):
    settings = dict(BASES[base].parts[part])
    with init_empty_weights():
        if "_class_name" in settings:
            module = getattr(diffusers, settings["_class_name"]).from_config(settings)
        else:
            cls = getattr(transformers, settings["architectures"][0])
            module = cls(cls.config_class(**settings))
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("base", "number"), UNETS.items())
def test_unet_is_the_published_one(base, number):
    assert num_parameters(base, "unet") == number


@pytest.mark.slow
@pytest.mark.parametrize(("base", "number"), TRANSFORMERS.items())
def test_transformer_is_the_published_one(base, number):
    assert num_parameters(base, "transformer") == number


@pytest.mark.slow
@pytest.mark.parametrize(("base", "number"), TEXT_ENCODERS.items())
def test_text_encoder_is_the_published_one(base, number):
    assert num_parameters(base, "text_encoder") == number


def test_second_text_encoder_of_xl_and_autoencoders_are_the_published_ones():
    assert num_parameters("sdxl", "text_encoder_2") == 694_659_840
    assert num_parameters("sdxl", "vae") == 83_653_863
    assert num_parameters("flux-dev", "vae") == 83_819_683


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_folder_is_written_once_and_names_what_diffusers_has(name, tmp_path):
    folder = BASES[name].write(tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    assert hasattr(diffusers, index.pop("_class_name"))
    for part, (library, cls) in ((k, v) for k, v in index.items() if isinstance(v, list)):
        if library is not None:
            assert hasattr({"diffusers": diffusers, "transformers": transformers}[library], cls)
            assert (folder / part).is_dir()
    assert BASES[name].write(tmp_path) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(("part", "padding"), [("tokenizer", 49407), ("tokenizer_2", 0)])
def test_tokenizer_numbers_words_as_clip_does(part, padding, tmp_path):
    folder = BASES["sdxl"].write(tmp_path)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / part)
    assert tokenizer("a photo of a cat").input_ids == SENTENCE
    padded = tokenizer("a", padding="max_length").input_ids
    assert padded == [49406, 320, 49407, *[padding] * 74]
    assert len(tokenizer) == 49408


def test_attention_of_stable_diffusion_2_is_computed_in_float32():
    with init_empty_weights():
        unet = diffusers.UNet2DConditionModel.from_config(dict(BASES["sd2"].parts["unet"]))
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    assert block.attn1.upcast_attention
    assert block.attn2.upcast_attention
