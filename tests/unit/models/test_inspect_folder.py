"""Folders of weights: diffusers' own, one component, one file, and none."""

import json

import pytest

from serve_app.models.inspect import Family, Fault, FileType, Prediction, Unreadable, inspect
from tests import community_files

SD1, SD2, XL, REFINER, SD3, FLUX = Family


def configure(file, **settings):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings))


def pipeline(folder, cls="StableDiffusionPipeline", unet=None, scheduler=None, variant=""):
    """A diffusers folder of a UNet, a VAE and a text encoder, each a small file."""
    configure(
        folder / "model_index.json",
        _class_name=cls,
        unet=["diffusers", "UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"],
        text_encoder=["transformers", "CLIPTextModel"],
        safety_checker=[None, None],
    )
    settings = {"in_channels": 4, "cross_attention_dim": 768} | (unet or {})
    configure(folder / "unet" / "config.json", **settings)
    configure(folder / "scheduler" / "scheduler_config.json", **(scheduler or {}))
    for name, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        community_files.write(folder / name / f"{stem}{variant}.safetensors", {"a": (10,)})
    return folder


@pytest.mark.parametrize(
    ("cls", "unet", "families"),
    [
        ("StableDiffusionPipeline", {}, (SD1,)),
        ("StableDiffusionInpaintPipeline", {"cross_attention_dim": 1024}, (SD2,)),
        ("StableDiffusionPipeline", {"cross_attention_dim": 32}, (SD1, SD2)),
        ("StableDiffusionPipeline", {"cross_attention_dim": 1280}, (SD1, SD2)),
        ("StableDiffusionXLPipeline", {"cross_attention_dim": 768}, (XL,)),
        ("StableDiffusionXLPipeline", {"cross_attention_dim": 2048}, (XL,)),
        ("StableDiffusionXLPipeline", {"cross_attention_dim": 32}, (XL,)),
        ("StableDiffusionXLImg2ImgPipeline", {"cross_attention_dim": 1280}, (REFINER,)),
        ("KandinskyPipeline", {}, ()),
    ],
)
def test_folder_is_told_by_its_configurations(tmp_path, cls, unet, families):
    found = inspect(pipeline(tmp_path / "x", cls, unet))
    assert (found.type, found.layout) == (FileType.CHECKPOINT, "diffusers folder")
    assert found.families == families
    assert [part.name for part in found.parts] == ["unet", "vae", "text_encoder"]
    assert (found.num_bytes, found.precision) == (60, "fp16")


def test_transformer_folder_counts_latents_before_they_are_packed(tmp_path):
    configure(
        tmp_path / "model_index.json",
        _class_name="FluxPipeline",
        transformer=["diffusers", "FluxTransformer2DModel"],
    )
    configure(tmp_path / "transformer" / "config.json", in_channels=64)
    found = inspect(tmp_path)
    assert (found.families, found.channels) == ((FLUX,), 16)
    assert found.prediction is Prediction.FLOW


def test_scheduler_tells_prediction_and_zero_snr(tmp_path):
    said = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    found = inspect(pipeline(tmp_path / "x", unet={"in_channels": 9}, scheduler=said))
    assert (found.prediction, found.zero_snr) == (Prediction.V, True)
    assert (found.channels, found.variant) == (9, "inpainting")
    plain = inspect(pipeline(tmp_path / "y"))
    assert (plain.prediction, plain.zero_snr) == (None, None)


def test_folder_of_variant_files_alone_is_read(tmp_path):
    found = inspect(pipeline(tmp_path / "x", variant=".fp16"))
    assert found.file_variants == ("fp16",)
    assert found.num_bytes == 60


def test_whole_files_are_preferred_to_their_variants(tmp_path):
    folder = pipeline(pipeline(tmp_path / "x"), variant=".fp16")
    community_files.write(
        folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors", {"b": (20,)}, "F32"
    )
    found = inspect(folder)
    assert found.file_variants == ("fp16",)
    assert {part.name: part.num_bytes for part in found.parts}["unet"] == 20 + 80


def test_folder_that_no_variant_completes_is_read_by_the_first(tmp_path):
    folder = pipeline(tmp_path / "x", variant=".fp16")
    for name in ("unet", "vae"):
        file = folder / name / "diffusion_pytorch_model.fp16.safetensors"
        community_files.write(file.with_name(file.name.replace("fp16", "bf16")), {"a": (100,)})
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    found = inspect(folder)
    assert found.file_variants == ("bf16", "fp16")
    assert {part.name: part.num_bytes for part in found.parts}["unet"] == 200


@pytest.mark.parametrize(
    ("config", "shapes", "type_", "families"),
    [
        (
            {"_class_name": "AutoencoderKL"},
            community_files.diffusers_vae(),
            FileType.VAE,
            (SD1, SD2, XL),
        ),
        (
            {"_class_name": "ControlNetModel"},
            community_files.diffusers_controlnet(community_files.ldm_unet()),
            FileType.CONTROLNET,
            (SD1,),
        ),
        (
            {"architectures": ["CLIPTextModel"]},
            community_files.clip(prefix=""),
            FileType.TEXT_ENCODER,
            (SD1, XL, SD3, FLUX),
        ),
    ],
    ids=["vae", "controlnet", "text-encoder"],
)
def test_folder_of_one_component_is_that(tmp_path, config, shapes, type_, families):
    configure(tmp_path / "config.json", **config)
    community_files.write(tmp_path / "model.safetensors", shapes)
    found = inspect(tmp_path)
    assert (found.type, found.families) == (type_, families)


@pytest.mark.parametrize("stems", [["a"], ["a.fp16"], ["a", "a.fp16", "a.bf16"]], ids=str)
def test_variants_of_one_component_are_those_of_its_files(tmp_path, stems):
    configure(tmp_path / "config.json", _class_name="AutoencoderKL")
    for stem in stems:
        name = stem.replace("a", "diffusion_pytorch_model")
        community_files.write(tmp_path / f"{name}.safetensors", community_files.diffusers_vae())
    wanted = sorted(stem.partition(".")[2] for stem in stems if "." in stem)
    assert inspect(tmp_path).file_variants == tuple(wanted)


@pytest.mark.parametrize(
    ("scaling", "families"),
    [(0.18215, (SD1, SD2)), (0.13025, (XL,)), (0.5, (SD1, SD2, XL))],
    ids=["sd", "xl", "own"],
)
def test_vae_is_told_by_the_scaling_of_its_latents(tmp_path, scaling, families):
    configure(tmp_path / "config.json", _class_name="AutoencoderKL", scaling_factor=scaling)
    community_files.write(tmp_path / "model.safetensors", community_files.diffusers_vae())
    assert inspect(tmp_path).families == families


def test_folder_of_an_adapter_of_pictures_is_that(tmp_path):
    community_files.write(tmp_path / "models" / "a.safetensors", community_files.ip_adapter())
    vision = {"vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14)}
    community_files.write(tmp_path / "models" / "image_encoder" / "model.safetensors", vision)
    found = inspect(tmp_path)
    assert (found.type, found.families) == (FileType.IP_ADAPTER, (SD1,))


def test_folder_of_one_file_is_that_file(tmp_path):
    community_files.write_named(tmp_path, "lora-xl-peft")
    assert inspect(tmp_path).type is FileType.LORA


@pytest.mark.parametrize(
    ("names", "fault", "reason"),
    [
        ([], Fault.NO_WEIGHTS, "holds no weights"),
        (["a.bin"], Fault.PICKLE, "dreamserve models convert"),
        (["a.safetensors", "b.safetensors"], Fault.NO_WEIGHTS, "holds 2 files"),
        ([f"{n}.safetensors" for n in range(40)], Fault.NO_WEIGHTS, "holds 40 files"),
    ],
    ids=["none", "pickles", "two", "many"],
)
def test_folder_that_says_nothing_is_told(tmp_path, names, fault, reason):
    for name in names:
        community_files.write(tmp_path / name, {"a.weight": (3, 4), "b.weight": (3,)})
    with pytest.raises(Unreadable, match=reason) as caught:
        inspect(tmp_path)
    assert caught.value.fault is fault


@pytest.mark.parametrize("content", ["", "[]", "{", '{"_class_name": 7}', "[" * 100_000])
def test_index_that_is_nonsense_is_no_error(tmp_path, content):
    (tmp_path / "model_index.json").write_text(content)
    found = inspect(tmp_path)
    assert (found.type, found.families, found.parts) == (FileType.CHECKPOINT, (), ())


def test_truncated_part_of_a_folder_is_told(tmp_path):
    folder = pipeline(tmp_path / "x")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\1\0\0")
    with pytest.raises(Unreadable) as caught:
        inspect(folder)
    assert caught.value.fault is Fault.TRUNCATED
