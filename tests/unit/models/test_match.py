"""Entries held against what their files are."""

from pathlib import Path

import pytest

from serve_app.config import CatalogueConfig
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.models.inspect import Family, Unreadable
from serve_app.models.inspect.match import Mismatch, check_match, families_of
from serve_app.models.weights.files import Refused
from serve_app.types import Kind
from tests import community_files
from tests.unit.models.test_inspect_folder import pipeline

CONFIG = CatalogueConfig()


def model(source, **changes):
    return ModelEntry(id="m", source=source, kinds=tuple(Kind), **changes)


def add_on(source, type_, **changes):
    return AddOn(id="a", type=type_, source=source, **changes)


def judged(entry, *models):
    """What is wrong with an entry, as (found, expected); None: nothing."""
    try:
        check_match(entry, CONFIG, {one.id: one for one in models})
    except Mismatch as exc:
        return exc.found, exc.expected
    return None


VAE = "a VAE for Stable Diffusion 1 or Stable Diffusion 2 or Stable Diffusion XL"
LORA = "a LoRA, LoCon, DoRA, LoHa or LoKr"
CHECKPOINT = "a checkpoint with its denoiser, VAE or text encoders"


@pytest.mark.parametrize(
    ("name", "type_", "wanted"),
    [
        ("lora-sd1-kohya", "lora", None),
        ("locon-sd1", "lora", None),
        ("dora-xl-peft", "lora", None),
        ("vae-diffusers", "vae", None),
        ("embedding-xl", "embedding", None),
        ("ip-adapter-xl", "ip_adapter", None),
        ("sd1", "lora", ("a checkpoint of Stable Diffusion 1", LORA)),
        ("loha-sd1", "lora", None),
        ("lokr-xl-ranked", "lora", None),
        ("lora-flux-peft", "vae", ("a LoRA for FLUX.1", "a VAE")),
        ("embedding-xl", "lora", ("an embedding for Stable Diffusion XL", LORA)),
        ("upscaler-esrgan", "vae", ("an upscaler", "a VAE")),
        ("upscaler-esrgan", "upscaler", None),
        ("upscaler-real-esrgan", "upscaler", None),
        ("upscaler-compact", "upscaler", None),
        (
            "upscaler-swinir",
            "upscaler",
            (
                "an upscaler (transformer)",
                "an upscaler of the form of ESRGAN, or of its compact form",
            ),
        ),
        ("vae-diffusers", "upscaler", (VAE, "an upscaler")),
        ("controlnet-sd1-ldm", "controlnet", None),
        ("controlnet-sd2-ldm-bare", "controlnet", None),
        ("controlnet-xl-diffusers", "controlnet", None),
        (
            "ip-adapter-sd1-face-id",
            "ip_adapter",
            (
                "an IP adapter for Stable Diffusion 1 (face id)",
                "an IP adapter that takes pictures",
            ),
        ),
    ],
)
def test_add_on_is_of_the_type_that_its_entry_says(tmp_path, name, type_, wanted):
    file = community_files.write_named(tmp_path, name)
    assert judged(add_on(file, type_)) == wanted


@pytest.mark.parametrize(
    ("name", "changes", "wanted"),
    [
        ("sd1", {}, None),
        ("sdxl", {}, None),
        ("sdxl", {"category": "stable_diffusion_xl"}, None),
        ("sd1-inpainting", {}, None),
        ("flux-all-in-one-fp8", {"category": "flux"}, None),
        (
            "sd1-unet",
            {},
            (
                "a UNet alone of Stable Diffusion 1 without a VAE",
                "one with it, or vae or base in the entry",
            ),
        ),
        (
            "sd1-unet",
            {"vae": "vae"},
            (
                "a UNet alone of Stable Diffusion 1 without text encoders",
                "one with them, or text_encoders or base in the entry",
            ),
        ),
        ("sd1-unet", {"vae": "vae", "text_encoders": "text"}, None),
        ("sd1-unet", {"base": "base"}, None),
        ("sd1-flat", {}, None),
        (
            "sdxl-no-clip-g",
            {},
            (
                "a checkpoint of Stable Diffusion XL without the text encoder clip_g",
                "one with them, or text_encoders or base in the entry",
            ),
        ),
        ("sdxl-no-clip-g", {"base": "base"}, None),
        ("sd1-no-vae", {"vae": "vae"}, None),
        ("lora-sd1-peft", {}, ("a LoRA for Stable Diffusion 1", CHECKPOINT)),
        (
            "sdxl",
            {"category": "stable_diffusion"},
            (
                "a checkpoint of Stable Diffusion XL",
                "one of Stable Diffusion 1 or Stable Diffusion 2, as category says",
            ),
        ),
        (
            "sd1-pix2pix",
            {},
            ("a checkpoint of Stable Diffusion 1 (pix2pix) with 8 channels", "4 or 9 channels"),
        ),
    ],
)
def test_model_is_of_the_kind_that_its_entry_says(tmp_path, name, changes, wanted):
    file = community_files.write_named(tmp_path, name)
    assert judged(model(file, **changes)) == wanted


def test_numbers_that_need_scales_are_refused(tmp_path):
    shapes = community_files.all_in_one(community_files.flux(), "clip_l")
    shapes |= {"scaled_fp8": ("F8_E4M3", (2,))}
    file = community_files.write(tmp_path / "x.safetensors", shapes)
    assert judged(model(file)) == ("numbers packed as scaled fp8", "plain floats")


@pytest.mark.parametrize(
    ("name", "unet", "scheduler", "wanted"),
    [
        ("sd1", {}, {"prediction_type": "epsilon"}, None),
        ("sd1-inpainting", {"in_channels": 9}, {}, None),
        (
            "sdxl-v-zsnr",
            {"cross_attention_dim": 2048},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            None,
        ),
        ("sd1-inpainting", {}, {}, ("channels 9", "4, as base_config says")),
        (
            "sd1",
            {"cross_attention_dim": 1024},
            {},
            (
                "a checkpoint of Stable Diffusion 1",
                "one of Stable Diffusion 2, as base_config is",
            ),
        ),
        (
            "sdxl-v-zsnr",
            {"cross_attention_dim": 2048},
            {"prediction_type": "epsilon"},
            ("prediction v_prediction", "epsilon, as base_config says"),
        ),
        (
            "sdxl-v-zsnr",
            {"cross_attention_dim": 2048},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
            ("zero_snr True", "False, as base_config says"),
        ),
    ],
)
def test_single_file_is_what_its_base_is(tmp_path, name, unet, scheduler, wanted):
    cls = "StableDiffusionXLPipeline" if name.startswith("sdxl") else "StableDiffusionPipeline"
    base = pipeline(tmp_path / "base", cls, unet, scheduler)
    file = community_files.write_named(tmp_path, name)
    assert judged(model(file, base_config=base)) == wanted


@pytest.mark.parametrize(
    ("name", "type_", "wanted"),
    [
        ("lora-sd1-kohya", "lora", None),
        ("vae-diffusers", "vae", None),
        ("embedding-clip-l", "embedding", None),
        (
            "lora-xl-kohya",
            "lora",
            ("a LoRA for Stable Diffusion XL", "one for Stable Diffusion 1, as m is"),
        ),
        (
            "vae-16",
            "vae",
            ("a VAE for Stable Diffusion 3 or FLUX.1", "one for Stable Diffusion 1, as m is"),
        ),
    ],
)
def test_add_on_is_made_for_the_models_that_its_entry_names(tmp_path, name, type_, wanted):
    served = model(pipeline(tmp_path / "m"))
    file = community_files.write_named(tmp_path, name)
    assert judged(add_on(file, type_, models=("m",)), served) == wanted
    assert judged(add_on(file, type_, models=("another",)), served) is None
    assert judged(add_on(file, type_), served) is None


@pytest.mark.parametrize(
    ("changes", "families"),
    [
        ({}, ()),
        ({"category": "stable_diffusion"}, (Family.SD1, Family.SD2)),
        ({"category": "stable_diffusion_xl"}, (Family.SDXL, Family.SDXL_REFINER)),
        ({"category": "stable_diffusion_3"}, (Family.SD3,)),
        ({"category": "flux"}, (Family.FLUX,)),
    ],
)
def test_model_whose_files_are_elsewhere_is_of_its_category(tmp_path, changes, families):
    for source in (tmp_path / "nothing", {"hub": "acme/x"}):
        assert families_of(model(source, **changes), CONFIG) == families


def test_mismatch_says_what_was_found_and_what_was_expected(tmp_path):
    file = community_files.write_named(tmp_path, "vae-16")
    with pytest.raises(Mismatch) as caught:
        check_match(add_on(file, "lora"), CONFIG)
    assert str(caught.value) == f"found a VAE for Stable Diffusion 3 or FLUX.1, expected {LORA}"


def test_files_of_a_hub_are_not_looked_at():
    check_match(model({"hub": "acme/x"}), CONFIG)


def test_pickle_passes_only_where_the_operator_allows_it(tmp_path):
    file = tmp_path / "x.ckpt"
    file.write_bytes(b"\x80\x04.")
    check_match(model(file), CatalogueConfig(allow_pickle=True))
    with pytest.raises(Unreadable, match="is a pickle"):
        check_match(model(file), CONFIG)


def test_configurations_of_this_repository_match_their_files():
    """The demo's own entries, whose models are smaller than any published one."""
    root = Path(__file__).parents[3]
    catalogue = Catalogue.load(CatalogueConfig(path=root / "configs" / "models"), root)
    models = {entry.id: entry for entry in catalogue}
    for entry in [*catalogue, *catalogue.add_ons]:
        check_match(entry, CONFIG, models)
    assert len(models) == 2


@pytest.mark.parametrize(
    ("files", "variant", "reason"),
    [
        (("", ".fp16"), "bf16", "found files of the variants fp16, expected bf16"),
        (("",), "fp16", "found no files of variants, expected fp16"),
        ((".fp16",), None, None),
        ((".fp16", ".ema"), "ema", None),
    ],
    ids=["another", "none", "alone", "chosen"],
)
def test_variant_that_a_folder_lacks_is_refused(tmp_path, files, variant, reason):
    for ending in files:
        pipeline(tmp_path / "x", variant=ending)
    if reason is None:
        assert judged(model(tmp_path / "x", variant=variant)) is None
        return
    with pytest.raises(Refused, match=reason):
        check_match(model(tmp_path / "x", variant=variant), CONFIG)


def test_folder_that_no_variant_completes_is_refused(tmp_path):
    pipeline(tmp_path / "x", variant=".fp16")
    (tmp_path / "x" / "vae" / "diffusion_pytorch_model.fp16.safetensors").rename(
        tmp_path / "x" / "vae" / "diffusion_pytorch_model.ema.safetensors"
    )
    with pytest.raises(Refused, match="the variants ema, fp16 are not complete"):
        check_match(model(tmp_path / "x"), CONFIG)


def test_rescaling_is_for_models_with_a_unet(tmp_path):
    folder = pipeline(tmp_path / "x", "StableDiffusion3Pipeline", unet={"in_channels": 16})
    found, expected = judged(model(folder, guidance_rescale=0.7))
    assert (found.endswith("with guidance_rescale"), expected) == (True, "a model with a UNet")
    assert judged(model(pipeline(tmp_path / "y"), guidance_rescale=0.7)) is None
