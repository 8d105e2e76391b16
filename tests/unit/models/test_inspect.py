"""What community files are found to be: every layout that is published, by its header alone."""

import pytest

from serve_app.models.inspect import Family, FileType, Prediction, inspect
from serve_app.models.inspect.adapters import NAMINGS
from serve_app.models.inspect.layouts import LAYOUTS
from serve_app.models.inspect.names import Names
from serve_app.models.weights.header import Tensor
from tests import community_files

T = FileType
SD1, SD2, XL, REFINER, SD3, FLUX = Family
OF_SD = (SD1, SD2, XL)
CLIP_L = (SD1, XL, SD3, FLUX)
TEXTS_AND_VAE = ("unet", "vae", "clip_l")
WANTED = {
    "sd1": (T.CHECKPOINT, (SD1,), {"channels": 4, "variant": None, "parts": TEXTS_AND_VAE}),
    "sd1-with-ema": (T.CHECKPOINT, (SD1,), {"parts": (*TEXTS_AND_VAE, "ema")}),
    "sd1-no-vae": (T.CHECKPOINT, (SD1,), {"parts": ("unet", "clip_l")}),
    "sd1-old-text-keys": (T.CHECKPOINT, (SD1,), {"parts": TEXTS_AND_VAE}),
    "sd1-inpainting": (T.CHECKPOINT, (SD1,), {"channels": 9, "variant": "inpainting"}),
    "sd1-pix2pix": (T.CHECKPOINT, (SD1,), {"channels": 8, "variant": "pix2pix"}),
    "sd1-unet": (T.UNET, (SD1,), {"parts": ("unet",), "channels": 4}),
    "sd1-unet-bare": (T.UNET, (SD1,), {"parts": ("unet",)}),
    "sd1-unet-diffusers": (T.UNET, (SD1,), {"parts": ("unet",), "channels": 4}),
    "sd1-flat": (T.CHECKPOINT, (SD1,), {"parts": TEXTS_AND_VAE, "channels": 4}),
    "sd2": (T.CHECKPOINT, (SD2,), {"parts": ("unet", "vae", "clip_h"), "prediction": None}),
    "sd2-inpainting": (T.CHECKPOINT, (SD2,), {"channels": 9, "variant": "inpainting"}),
    "sd2-depth": (T.CHECKPOINT, (SD2,), {"channels": 5, "variant": "depth"}),
    "sdxl": (T.CHECKPOINT, (XL,), {"parts": ("unet", "vae", "clip_l", "clip_g"), "channels": 4}),
    "sdxl-no-vae": (T.CHECKPOINT, (XL,), {"parts": ("unet", "clip_l", "clip_g")}),
    "sdxl-no-clip-g": (T.CHECKPOINT, (XL,), {"parts": ("unet", "vae", "clip_l")}),
    "sdxl-inpainting": (T.CHECKPOINT, (XL,), {"channels": 9, "variant": "inpainting"}),
    "sdxl-v-zsnr": (T.CHECKPOINT, (XL,), {"prediction": Prediction.V, "zero_snr": True}),
    "sdxl-edm": (T.CHECKPOINT, (XL,), {"prediction": Prediction.EDM}),
    "sdxl-unet-diffusers": (T.UNET, (XL,), {"parts": ("unet",)}),
    "sdxl-refiner": (T.CHECKPOINT, (REFINER,), {"parts": ("unet", "vae", "clip_g")}),
    "flux-dev": (T.TRANSFORMER, (FLUX,), {"variant": "dev", "channels": 16}),
    "flux-schnell": (T.TRANSFORMER, (FLUX,), {"variant": "schnell", "parts": ("transformer",)}),
    "flux-fill": (T.TRANSFORMER, (FLUX,), {"variant": "fill", "channels": 96}),
    "flux-depth": (T.TRANSFORMER, (FLUX,), {"variant": "depth or canny", "channels": 32}),
    "flux-diffusers": (T.TRANSFORMER, (FLUX,), {"variant": "dev", "channels": 16}),
    "flux-all-in-one-fp8": (
        T.CHECKPOINT,
        (FLUX,),
        {"parts": ("transformer", "vae", "clip_l", "t5xxl"), "precision": "fp8"},
    ),
    "flux-scaled-fp8": (
        T.TRANSFORMER,
        (FLUX,),
        {"precision": "fp8", "quantization": "scaled fp8"},
    ),
    "flux-nf4": (T.TRANSFORMER, (FLUX,), {"quantization": "nf4"}),
    "sd3-medium": (
        T.CHECKPOINT,
        (SD3,),
        {"parts": ("transformer", "vae"), "variant": "3 medium", "prediction": Prediction.FLOW},
    ),
    "sd3-all-in-one": (
        T.CHECKPOINT,
        (SD3,),
        {"parts": ("transformer", "vae", "clip_l", "clip_g", "t5xxl"), "channels": 16},
    ),
    "sd3-transformer": (T.TRANSFORMER, (SD3,), {"variant": "3 medium"}),
    "sd3-diffusers": (T.TRANSFORMER, (SD3,), {"variant": "3 medium", "channels": 16}),
    "sd35-large": (T.TRANSFORMER, (SD3,), {"variant": "3.5 large"}),
    "sd35-medium": (T.TRANSFORMER, (SD3,), {"variant": "3.5 medium"}),
    "lora-sd1-kohya": (T.LORA, (SD1,), {"rank": 16, "parts": ("unet", "text_encoder")}),
    "lora-sd2-kohya": (T.LORA, (SD2,), {"rank": 16}),
    "lora-sd1-text-only": (T.LORA, (SD1,), {"parts": ("text_encoder",)}),
    "lora-sd1-peft": (T.LORA, (SD1,), {"rank": 16, "parts": ("unet", "text_encoder")}),
    "lora-sd1-peft-bare": (T.LORA, (SD1,), {"rank": 16}),
    "lora-sd1-peft-saved": (T.LORA, (SD1,), {"rank": 16}),
    "lora-sd1-diffusers": (T.LORA, (SD1,), {"rank": 16}),
    "lora-sd1-processors": (T.LORA, (SD1,), {"rank": 4}),
    "lora-sd1-self-attention": (T.LORA, (SD1, SD2), {"rank": 16}),
    "lora-xl-kohya": (
        T.LORA,
        (XL,),
        {"rank": 16, "parts": ("unet", "text_encoder", "text_encoder_2")},
    ),
    "lora-xl-kohya-diffusers": (T.LORA, (XL,), {"rank": 16}),
    "lora-xl-peft": (T.LORA, (XL,), {"rank": 16}),
    "lora-xl-self-attention": (T.LORA, (XL,), {"rank": 16}),
    "lora-xl-text-only": (T.LORA, (XL, SD3), {"rank": 16}),
    "lora-flux-kohya": (T.LORA, (FLUX,), {"rank": 16, "parts": ("transformer",)}),
    "lora-flux-peft": (T.LORA, (FLUX,), {"rank": 16}),
    "lora-flux-comfy": (T.LORA, (FLUX,), {"rank": 16}),
    "lora-flux-peft-bare": (T.LORA, (FLUX,), {"rank": 16}),
    "lora-flux-bare": (T.LORA, (FLUX,), {"rank": 16}),
    "lora-text-peft-bare": (T.LORA, CLIP_L, {"rank": 16}),
    "lora-flux-onetrainer": (T.LORA, (FLUX,), {"rank": 16}),
    "lora-flux-xlabs": (T.LORA, (FLUX,), {"rank": 16}),
    "lora-sd3-kohya": (T.LORA, (SD3,), {"rank": 16}),
    "lora-sd3-peft": (T.LORA, (SD3,), {"rank": 16}),
    "locon-sd1": (T.LOCON, (SD1,), {"rank": 16}),
    "dora-sd1-kohya": (T.DORA, (SD1,), {"rank": 16}),
    "dora-xl-peft": (T.DORA, (XL,), {"rank": 16}),
    "loha-sd1": (T.LOHA, (SD1,), {"rank": 8}),
    "loha-xl": (T.LOHA, (XL,), {"rank": 8}),
    "lokr-sd1": (T.LOKR, (SD1,), {"rank": None}),
    "lokr-xl-ranked": (T.LOKR, (XL,), {"rank": 12}),
    "full-sd1": (T.LORA, (SD1,), {"rank": None}),
    "lokr-flux-lycoris": (T.LOKR, (FLUX,), {"rank": None}),
    "embedding-sd1-a1111": (T.EMBEDDING, (SD1,), {"num_vectors": 8}),
    "embedding-sd2-a1111": (T.EMBEDDING, (SD2,), {"num_vectors": 8}),
    "embedding-sd1-diffusers": (T.EMBEDDING, (SD1,), {"num_vectors": 1}),
    "embedding-sd1-converted": (T.EMBEDDING, (SD1,), {"num_vectors": 4}),
    "embedding-xl": (T.EMBEDDING, (XL,), {"num_vectors": 4}),
    "embedding-xl-clip-g": (T.EMBEDDING, (XL,), {"num_vectors": 4}),
    "embedding-clip-l": (T.EMBEDDING, (SD1, XL), {"num_vectors": 4}),
    "embedding-sd3": (T.EMBEDDING, (SD3,), {"num_vectors": 4}),
    "embedding-flux": (T.EMBEDDING, (FLUX,), {"num_vectors": 4}),
    "vae-ldm": (T.VAE, OF_SD, {"channels": 4, "parts": ("vae",)}),
    "vae-ldm-prefixed": (T.VAE, OF_SD, {"channels": 4, "parts": ("vae",)}),
    "vae-diffusers": (T.VAE, OF_SD, {"channels": 4, "parts": ("vae",)}),
    "vae-16": (T.VAE, (SD3, FLUX), {"channels": 16}),
    "text-clip-l": (T.TEXT_ENCODER, CLIP_L, {"parts": ("clip_l",)}),
    "text-clip-l-flat": (T.TEXT_ENCODER, CLIP_L, {"parts": ("clip_l",)}),
    "text-clip-h": (T.TEXT_ENCODER, (SD2,), {"parts": ("clip_h",)}),
    "text-clip-g": (T.TEXT_ENCODER, (XL, REFINER, SD3), {"parts": ("clip_g",)}),
    "text-t5xxl": (T.TEXT_ENCODER, (SD3, FLUX), {"parts": ("t5xxl",)}),
    "controlnet-sd1-ldm": (T.CONTROLNET, (SD1,), {"parts": ("controlnet",)}),
    "controlnet-sd2-ldm-bare": (T.CONTROLNET, (SD2,), {}),
    "controlnet-sd1-diffusers": (T.CONTROLNET, (SD1,), {"variant": None}),
    "controlnet-xl-diffusers": (T.CONTROLNET, (XL,), {"variant": None}),
    "controlnet-xl-union": (T.CONTROLNET, (XL,), {"variant": "union"}),
    "controlnet-flux": (T.CONTROLNET, (FLUX,), {}),
    "controlnet-sd3": (T.CONTROLNET, (SD3,), {}),
    "ip-adapter-sd1": (T.IP_ADAPTER, (SD1,), {"variant": None}),
    "ip-adapter-sd1-plus": (T.IP_ADAPTER, (SD1,), {"variant": "plus"}),
    "ip-adapter-sd1-full": (T.IP_ADAPTER, (SD1,), {"variant": "full face"}),
    "ip-adapter-sd1-face-id": (T.IP_ADAPTER, (SD1,), {"variant": "face id"}),
    "ip-adapter-xl": (T.IP_ADAPTER, (XL,), {"variant": None}),
    "ip-adapter-flux": (T.IP_ADAPTER, (FLUX,), {}),
    "upscaler-esrgan": (T.UPSCALER, (), {"variant": None}),
    "upscaler-real-esrgan": (T.UPSCALER, (), {}),
    "upscaler-compact": (T.UPSCALER, (), {}),
    "upscaler-swinir": (T.UPSCALER, (), {"variant": "transformer"}),
}


def facts(found):
    return dict(found) | {
        "parts": tuple(part.name for part in found.parts),
        "precision": found.precision,
    }


def test_every_community_file_has_its_line():
    assert WANTED.keys() == community_files.FILES.keys()


@pytest.mark.parametrize("name", WANTED)
def test_community_file_is_found_as_what_it_is(tmp_path, name):
    type_, families, more = WANTED[name]
    found = inspect(community_files.write_named(tmp_path, name))
    assert (found.type, found.families) == (type_, families)
    assert facts(found) | more == facts(found)
    noun = type_.noun.removeprefix("a ").removeprefix("an ").removesuffix(" alone")
    assert noun in found.describe()
    assert sum(part.num_tensors for part in found.parts) <= len(community_files.FILES[name]())


def names_of(shapes):
    typed = community_files.of_type("F16", shapes)
    return Names({name: Tensor(*said, (0, 0)) for name, said in typed.items()})


def first(rows, holds):
    return next((row for row in rows if holds(row)), None)


def test_every_naming_has_a_community_file():
    files = [names_of(shapes()) for shapes in community_files.ADAPTERS.values()]
    found = [first(NAMINGS, lambda sign, names=names: sign.holds(names)) for names in files]
    assert {sign.means for sign in found} == {sign.means for sign in NAMINGS}


def test_every_layout_has_a_community_file():
    files = [names_of(shapes()) for shapes in community_files.FILES.values()]
    found = [first(LAYOUTS, lambda row, names=names: row.matches(names)) for names in files]
    rows = {row.name for row in LAYOUTS if row.type is not FileType.OTHER}
    assert {row.name for row in found} == rows


def test_every_key_of_a_layout_is_needed():
    """A file without what one of the keys is about is of another layout, or of none."""
    needed = set()
    for shapes in community_files.FILES.values():
        names = names_of(whole := shapes())
        row = next(row for row in LAYOUTS if row.matches(names))
        for key in row.keys:
            if (row.name, key) in needed:
                continue
            found = set(names.find_all(key))
            others = {name: shape for name, shape in whole.items() if name not in found}
            assert not row.matches(names_of(others)), f"{row.name} without {key}"
            needed.add((row.name, key))
    rows = {row.name for row in LAYOUTS if row.type is not FileType.OTHER}
    assert {name for name, _ in needed} == rows


OTHERS = {
    "lora_controlnet": {"lora_controlnet": (), "input_blocks.0.0.down": (128, 4, 3, 3)},
    "lllite": {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight": (1,)},
    "t2i": {"adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
    "motion": {"down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight": (320, 320)},
    "ia3": {"lora_unet_mid_block_attentions_0_proj.on_input": ()},
    "oft": {"oft_unet_mid_block_attentions_0_proj_in.oft_blocks": (4, 8, 8)},
    "glora": {"lora_unet_proj_in.a1.weight": (4, 320), "lora_unet_proj_in.b1.weight": (4, 320)},
    "qwen": {"transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight": (16, 3072)},
    "flux2": {"double_stream_modulation_img.lin.weight": (1, 1)},
    "chroma": {"distilled_guidance_layer.in_proj.bias": (1,)},
    "hunyuan": {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (1,)},
    "auraflow": {"double_layers.0.attn.w2q.weight": (1,)},
    "lumina": {"model.diffusion_model.cap_embedder.0.weight": (1,)},
    "ltx": {"model.diffusion_model.patchify_proj.weight": (1,)},
    "wan": {"head.modulation": (1, 2, 5120)},
    "hidream": {"double_stream_blocks.0.block.adaLN_modulation.1.bias": (1,)},
    "sana": {"blocks.0.cross_attn.q_linear.weight": (1,)},
    "cascade-c": {"clip_txt_mapper.weight": (2048, 1280)},
    "cascade-b": {"down_blocks.1.0.channelwise.0.weight": (1, 576)},
    "svd": {"model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight": (320,)},
    "unclip": {"noise_augmentor.data_mean": (1, 1024)},
    "x4": community_files.under(
        "model.diffusion_model.", community_files.ldm_unet(1024, channels=7)
    ),
    "safety": {"concept_embeds": (17, 768)},
    "vision": {"vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14)},
    "taesd": {"decoder.layers.0.weight": (64, 4, 3, 3)},
    "taesd-first": {"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_known_and_not_served_has_its_name(tmp_path, name):
    found = inspect(community_files.write(tmp_path / "x.safetensors", OTHERS[name]))
    assert found.type is FileType.OTHER
    assert found.noun in {row.name for row in LAYOUTS if row.type is FileType.OTHER}


def test_every_row_of_what_is_not_served_is_hit(tmp_path):
    found = {
        inspect(community_files.write(tmp_path / f"{name}.safetensors", shapes)).layout
        for name, shapes in OTHERS.items()
    }
    assert found == {row.name for row in LAYOUTS if row.type is FileType.OTHER}


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"a.weight": (3, 4), "b.weight": (4,)},
        {"lora_unet.blocks.0.foo.lora_A.weight": (4, 8), "blocks.0.foo.lora_B.weight": (8, 4)},
        {"a\nconv_in.weight": (1,), "unet.\n": (1,)},
    ],
    ids=["none", "two", "adapter-of-another-model", "line-breaks"],
)
def test_unknown_file_says_so_with_its_first_keys(tmp_path, shapes):
    found = inspect(community_files.write(tmp_path / "x.safetensors", shapes))
    assert (found.type, found.layout, found.families) == (FileType.UNKNOWN, "", ())
    assert len(found.first_keys) == len(shapes)
    assert "no known layout" in found.describe()
    assert "\n" not in found.describe()


def test_unknown_file_shows_no_more_than_five_keys_of_96_letters(tmp_path):
    shapes = {f"{letter * 97}.weight": (1,) for letter in "abcdef"}
    found = inspect(community_files.write(tmp_path / "x.safetensors", shapes))
    assert found.first_keys == tuple(letter * 96 for letter in "abcde")


def test_bytes_of_ema_copies_are_told_apart(tmp_path):
    plain = inspect(community_files.write_named(tmp_path, "sd1"))
    both = inspect(community_files.write_named(tmp_path, "sd1-with-ema"))
    assert both.num_bytes == plain.num_bytes
    unet = sum(part.num_bytes for part in plain.parts if part.name == "unet")
    assert plain.ema_bytes == 0
    assert both.ema_bytes == 2 * unet + 4 + 8  # float32, a decay and a count


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("F32", "fp32"), ("F16", "fp16"), ("BF16", "bf16"), ("F8_E4M3", "fp8")],
)
def test_precision_is_that_of_the_largest_part(tmp_path, dtype, precision):
    shapes = community_files.of_type(dtype, community_files.sd_checkpoint(vae=False))
    shapes |= community_files.of_type(
        "F32", community_files.under("first_stage_model.", community_files.ldm_vae())
    )
    found = inspect(community_files.write(tmp_path / "x.safetensors", shapes))
    assert found.precision == precision
    assert {part.name: part.precision for part in found.parts}["vae"] == "fp32"


def test_part_of_two_precisions_is_mixed(tmp_path):
    shapes = community_files.ldm_unet()
    half = dict(list(shapes.items())[: len(shapes) // 2])
    shapes |= community_files.of_type("F32", half)
    found = inspect(community_files.write(tmp_path / "x.safetensors", shapes))
    assert found.precision == "mixed"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_alpha_is_read_from_its_tensors(tmp_path, dtype):
    layers = {"mid_block.attentions.0.proj_in": (1280, 1280)}
    shapes = community_files.kohya(layers)
    name = "lora_unet_mid_block_attentions_0_proj_in.alpha"
    shapes[name] = (dtype, ())
    file = community_files.write(tmp_path / "x.safetensors", shapes)
    bits = {"F32": b"\0\0\0\x41", "F16": b"\0\x48", "BF16": b"\0\x41"}[dtype]  # 8
    with file.open("r+b") as opened:
        opened.seek(-len(bits), 2)
        opened.write(bits)
    assert inspect(file).alpha == 8.0
