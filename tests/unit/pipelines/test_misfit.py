"""What becomes of whatever is wrong with an add-on: an error of the field that names it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from serve_app import errors
from serve_app.models import AddOn
from serve_app.pipelines.addons.controlnets import ControlNet
from serve_app.pipelines.addons.lookup import Named, NamedAddOns
from serve_app.pipelines.addons.misfit import Unfit, judging

NOUNS = {
    "lora": ("lora_model", "LoRA ink", "a LoRA or DoRA for the model's own layers"),
    "vae": ("vae", "VAE ink", "the tensors and settings of an AutoencoderKL"),
    "embedding": ("embeddings_model", "embedding ink", "vectors for the model's text encoders"),
    "ip_adapter": (
        "ip_adapter_id",
        "IP adapter ink",
        "an IP adapter and its image encoder, as diffusers reads them",
    ),
    "controlnet": ("controlnet_model", "ControlNet ink", "a ControlNet for the model's own UNet"),
    "upscaler": (
        "upscale",
        "upscaler ink",
        "an upscaler of the form of ESRGAN, or of its compact form",
    ),
}


def named(add_on_type="lora", key="ink", **changes):
    return Named(AddOn(id="ink", type=add_on_type, source=Path("x"), **changes), key)


@pytest.mark.parametrize("add_on_type", NOUNS)
def test_misfit_is_told_by_field_and_title(add_on_type):
    field, title, form = NOUNS[add_on_type]
    for raised, reason in (
        (Unfit("this", "that"), "found this, expected that"),
        (KeyError("/a/path"), f"found files of another form, expected {form}"),
    ):
        with pytest.raises(errors.AddOnMisfit) as caught, judging(named(add_on_type)):
            raise raised
        assert caught.value.field == field
        assert f"The {title} does not fit this model: {reason}" in str(caught.value)
        assert caught.value.__cause__ is raised


def test_what_is_no_misfit_stays_what_it_is():
    refused = errors.InvalidRequest("vae", "text")
    with pytest.raises(errors.InvalidRequest) as caught, judging(named()):
        raise refused
    assert caught.value is refused
    with pytest.raises(errors.OutOfMemory), judging(named()):
        raise torch.OutOfMemoryError("no room")


def test_what_takes_memory_is_held_by_its_key_and_embeddings_are_not():
    found = NamedAddOns(
        loras={"a": named(key="lora a"), "b": named(key="lora b")},
        vae=named("vae", "vae"),
        embeddings={"c": named("embedding", "embedding")},
        ip_adapter=named("ip_adapter", "adapter"),
        controlnets=(named("controlnet", "net 1"), named("controlnet", "net 2")),
        upscaler=named("upscaler", "upscaler"),
    )
    wanted = {"lora a", "lora b", "vae", "adapter", "net 1", "net 2", "upscaler"}
    assert sorted(found.large) == sorted(wanted)
    assert NamedAddOns().large == ()


def test_embedding_stands_for_its_trigger_or_else_its_id():
    found = NamedAddOns(
        embeddings={"c": named("embedding", trigger="<sun>"), "d": named("embedding")}
    )
    assert found.triggers == {"c": "<sun>", "d": "d"}


def test_controlnet_adds_to_each_place_on_the_way_down_and_to_the_middle():
    module = SimpleNamespace(controlnet_down_blocks=[None] * 12)
    assert ControlNet(module, lane=None).num_outputs == 13
