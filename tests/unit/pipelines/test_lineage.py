"""What files say of themselves, held against the kind of a model."""

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from serve_app.pipelines.addons.lineage import lineage_of, read_header
from serve_app.pipelines.addons.misfit import Unfit


def pipeline(name, text_width=None):
    unet = SimpleNamespace(config=SimpleNamespace(cross_attention_dim=text_width))
    return type(name, (), {"unet": unet})()


SD1 = lineage_of(pipeline("StableDiffusionPipeline", 768))
SD2 = lineage_of(pipeline("StableDiffusionInpaintPipeline", 1024))
XL = lineage_of(pipeline("StableDiffusionXLPipeline", 2048))
SD3 = lineage_of(pipeline("StableDiffusion3Pipeline"))
FLUX = lineage_of(pipeline("FluxPipeline"))
TINY = lineage_of(pipeline("StableDiffusionPipeline", 32))


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({}, [SD1, SD2, XL, SD3, FLUX, TINY]),
        ({"ss_base_model_version": "sd_v1"}, [SD1, TINY]),
        ({"ss_base_model_version": "sd_1.5"}, [SD1, TINY]),
        ({"ss_base_model_version": "sd_v2_v"}, [SD2, TINY]),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, [XL]),
        ({"modelspec.architecture": "Stable-Diffusion-XL-v1-base/LoRA"}, [XL]),
        ({"modelspec.architecture": "stable-diffusion-3-medium"}, [SD3]),
        ({"modelspec.architecture": "flux-1-dev/lora"}, [FLUX]),
        ({"ss_base_model_version": "a kind of next year"}, [SD1, SD2, XL, SD3, FLUX, TINY]),
    ],
)
def test_header_fits_the_kinds_that_it_names_alone(said, fits):
    for lineage in (SD1, SD2, XL, SD3, FLUX, TINY):
        if any(lineage is one for one in fits):
            lineage.check(said)
            continue
        with pytest.raises(Unfit, match="expected one for"):
            lineage.check(said)


@pytest.mark.parametrize("lineage", [SD1, SD2, TINY])
def test_vae_of_either_first_kind_fits_both(lineage):
    for version in ("v1", "v2-768-v"):
        lineage.check_vae({"modelspec.architecture": f"stable-diffusion-{version}/vae"})
    with pytest.raises(Unfit, match="a file for Stable Diffusion XL"):
        lineage.check_vae({"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"})
    with pytest.raises(Unfit):
        XL.check_vae({"modelspec.architecture": "stable-diffusion-v1/vae"})


def test_message_names_every_kind_that_would_do():
    with pytest.raises(Unfit) as caught:
        TINY.check({"ss_base_model_version": "sdxl"})
    assert str(caught.value) == (
        "found a file for Stable Diffusion XL, "
        "expected one for Stable Diffusion 1 or Stable Diffusion 2"
    )


def test_header_of_a_file_without_any_is_empty(tmp_path):
    save_file({"a": np.ones(1)}, tmp_path / "a.safetensors")
    save_file({"a": np.ones(1)}, tmp_path / "b.safetensors", {"said": "this"})
    assert read_header(tmp_path / "a.safetensors") == {}
    assert read_header(tmp_path / "b.safetensors") == {"said": "this"}
