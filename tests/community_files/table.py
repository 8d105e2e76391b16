"""All files, by name."""

from tests.community_files.adapters import (
    ATTENTION,
    TEXT,
    full,
    kohya,
    layers_of,
    loha,
    lokr,
    pairs,
    processors,
)
from tests.community_files.checkpoints import (
    all_in_one,
    ema_of,
    refiner_checkpoint,
    sd_checkpoint,
    xl_checkpoint,
)
from tests.community_files.controlnets import diffusers_controlnet, ldm_controlnet
from tests.community_files.file import write
from tests.community_files.ip_adapters import ip_adapter
from tests.community_files.shapes import affine, of_type, under
from tests.community_files.text_encoders import clip, open_clip, t5
from tests.community_files.transformers import diffusers_flux, diffusers_sd3, flux, sd3
from tests.community_files.unets import XL, in_diffusers_names, ldm_unet
from tests.community_files.upscalers import compact_esrgan, esrgan, real_esrgan
from tests.community_files.vaes import diffusers_vae, ldm_vae

_SD1, _SD2, _XL = ldm_unet(), ldm_unet(1024), ldm_unet(**XL)
_SD1_LAYERS = layers_of(in_diffusers_names(_SD1), *ATTENTION)
_SD2_LAYERS = layers_of(in_diffusers_names(_SD2), *ATTENTION)
_XL_LAYERS = layers_of(in_diffusers_names(_XL, 3), *ATTENTION)
_XL_LDM_LAYERS = layers_of(_XL, *ATTENTION)
_CLIP_L, _CLIP_G = layers_of(clip(), *TEXT), layers_of(clip(1280, 32), *TEXT)
_FLUX_LAYERS = layers_of(flux(), "attn", "mlp", "linear1", "linear2", "mod")
_DIT_LAYERS = layers_of(diffusers_flux(), "attn.")
_SD3_LAYERS = layers_of(sd3(), "qkv", "attn.proj", "fc1", "fc2")
_SD3_DIT_LAYERS = layers_of(diffusers_sd3(), "attn.")
_SD1_CONVS = layers_of(in_diffusers_names(_SD1), "resnets", "samplers", *ATTENTION)
_TE = {"prefix": "lora_te_"}

CHECKPOINTS = {
    "sd1": sd_checkpoint,
    "sd1-with-ema": lambda: sd_checkpoint() | ema_of(_SD1),
    "sd1-no-vae": lambda: sd_checkpoint(vae=False),
    "sd1-old-text-keys": lambda: sd_checkpoint(prefix=""),
    "sd1-inpainting": lambda: sd_checkpoint(channels=9),
    "sd1-pix2pix": lambda: sd_checkpoint(channels=8),
    "sd1-unet": lambda: under("model.diffusion_model.", _SD1),
    "sd1-unet-bare": lambda: _SD1,
    "sd1-unet-diffusers": lambda: in_diffusers_names(_SD1),
    "sd1-flat": lambda: (
        under("unet.", in_diffusers_names(_SD1))
        | under("vae.", diffusers_vae())
        | under("text_encoder.", clip())
    ),
    "sd2": lambda: sd_checkpoint(1024),
    "sd2-inpainting": lambda: sd_checkpoint(1024, channels=9),
    "sd2-depth": lambda: sd_checkpoint(1024, channels=5),
    "sdxl": xl_checkpoint,
    "sdxl-no-vae": lambda: xl_checkpoint(vae=False),
    "sdxl-no-clip-g": lambda: xl_checkpoint(both=False),
    "sdxl-inpainting": lambda: xl_checkpoint(channels=9),
    "sdxl-v-zsnr": lambda: xl_checkpoint() | {"v_pred": (1,), "ztsnr": (1,)},
    "sdxl-edm": lambda: xl_checkpoint() | {"edm_mean": (4,), "edm_std": (4,)},
    "sdxl-unet-diffusers": lambda: in_diffusers_names(_XL, 3),
    "sdxl-refiner": refiner_checkpoint,
    "flux-dev": flux,
    "flux-schnell": lambda: under("model.diffusion_model.", flux(guidance=False)),
    "flux-fill": lambda: flux(channels=384),
    "flux-depth": lambda: flux(channels=128),
    "flux-diffusers": diffusers_flux,
    "flux-all-in-one-fp8": lambda: of_type("F8_E4M3", all_in_one(flux(), "clip_l", "t5xxl")),
    "flux-scaled-fp8": lambda: (
        of_type("F8_E4M3", flux())
        | {
            "scaled_fp8": ("F8_E4M3", (2,)),
            "double_blocks.0.img_attn.qkv.scale_weight": ("F32", ()),
        }
    ),
    "flux-nf4": lambda: (
        flux()
        | {"double_blocks.0.img_attn.qkv.weight.quant_state.bitsandbytes__nf4": ("U8", (100,))}
    ),
    "sd3-medium": lambda: (
        under("model.diffusion_model.", sd3()) | under("first_stage_model.", ldm_vae(16))
    ),
    "sd3-all-in-one": lambda: all_in_one(sd3(), "clip_l", "clip_g", "t5xxl"),
    "sd3-transformer": lambda: under("model.diffusion_model.", sd3()),
    "sd3-diffusers": diffusers_sd3,
    "sd35-large": lambda: under("model.diffusion_model.", sd3(38, norms=True)),
    "sd35-medium": lambda: under(
        "model.diffusion_model.", sd3(24, 384, dual=range(13), norms=True)
    ),
}
ADAPTERS = {
    "lora-sd1-kohya": lambda: kohya(_SD1_LAYERS) | kohya(_CLIP_L, **_TE),
    "lora-sd2-kohya": lambda: kohya(_SD2_LAYERS),
    "lora-sd1-text-only": lambda: kohya(_CLIP_L, **_TE),
    "lora-sd1-peft": lambda: pairs(_SD1_LAYERS) | pairs(_CLIP_L, "text_encoder."),
    "lora-sd1-peft-bare": lambda: pairs(_SD1_LAYERS, ""),
    "lora-sd1-peft-saved": lambda: pairs(_SD1_LAYERS, "base_model.model."),
    "lora-sd1-diffusers": lambda: pairs(_SD1_LAYERS, halves=("lora.down", "lora.up")),
    "lora-sd1-processors": lambda: processors(_SD1_LAYERS),
    "lora-sd1-self-attention": lambda: kohya(
        {name: shape for name, shape in _SD1_LAYERS.items() if "attn1" in name}
    ),
    "lora-xl-kohya": lambda: (
        kohya(_XL_LDM_LAYERS) | kohya(_CLIP_L, "lora_te1_") | kohya(_CLIP_G, "lora_te2_")
    ),
    "lora-xl-kohya-diffusers": lambda: kohya(_XL_LAYERS),
    "lora-xl-peft": lambda: pairs(_XL_LAYERS),
    "lora-xl-self-attention": lambda: kohya(
        {name: shape for name, shape in _XL_LDM_LAYERS.items() if "attn1" in name}
    ),
    "lora-xl-text-only": lambda: kohya(_CLIP_L, "lora_te1_") | kohya(_CLIP_G, "lora_te2_"),
    "lora-flux-kohya": lambda: kohya(_FLUX_LAYERS),
    "lora-flux-peft": lambda: pairs(_DIT_LAYERS, "transformer."),
    "lora-flux-comfy": lambda: pairs(_FLUX_LAYERS, "diffusion_model."),
    "lora-flux-peft-bare": lambda: pairs(_DIT_LAYERS, ""),
    "lora-flux-bare": lambda: pairs(_FLUX_LAYERS, ""),
    "lora-text-peft-bare": lambda: pairs(_CLIP_L, ""),
    "lora-flux-onetrainer": lambda: kohya(_DIT_LAYERS, "lora_transformer_"),
    "lora-flux-xlabs": lambda: {
        f"double_blocks.{number}.processor.qkv_lora{side}.{half}.weight": shape
        for number in range(19)
        for side in (1, 2)
        for half, shape in (("down", (16, 3072)), ("up", (9216, 16)))
    },
    "lora-sd3-kohya": lambda: kohya(_SD3_LAYERS),
    "lora-sd3-peft": lambda: pairs(_SD3_DIT_LAYERS, "transformer."),
    "locon-sd1": lambda: kohya(_SD1_CONVS),
    "dora-sd1-kohya": lambda: kohya(_SD1_LAYERS, dora=True),
    "dora-xl-peft": lambda: (
        pairs(_XL_LAYERS)
        | {f"unet.{name}.lora_magnitude_vector": shape[:1] for name, shape in _XL_LAYERS.items()}
    ),
    "loha-sd1": lambda: loha(_SD1_LAYERS),
    "loha-xl": lambda: loha(_XL_LDM_LAYERS),
    "lokr-sd1": lambda: lokr(_SD1_LAYERS),
    "lokr-xl-ranked": lambda: lokr(_XL_LDM_LAYERS, rank=12),
    "full-sd1": lambda: full(_SD1_LAYERS),
    "lokr-flux-lycoris": lambda: lokr(_DIT_LAYERS, "lycoris_", factor=16),
}
SMALL = {
    "embedding-sd1-a1111": lambda: {"emb_params": (8, 768)},
    "embedding-sd2-a1111": lambda: {"emb_params": (8, 1024)},
    "embedding-sd1-diffusers": lambda: {"<cat-toy>": (768,)},
    "embedding-sd1-converted": lambda: {"string_to_param.*": (4, 768)},
    "embedding-xl": lambda: {"clip_l": (4, 768), "clip_g": (4, 1280)},
    "embedding-xl-clip-g": lambda: {"clip_g": (4, 1280)},
    "embedding-clip-l": lambda: {"clip_l": (4, 768)},
    "embedding-sd3": lambda: {"clip_l": (4, 768), "clip_g": (4, 1280), "t5xxl": (4, 4096)},
    "embedding-flux": lambda: {"clip_l": (4, 768), "t5xxl": (4, 4096)},
    "vae-ldm": ldm_vae,
    "vae-ldm-prefixed": lambda: under("first_stage_model.", ldm_vae()),
    "vae-diffusers": diffusers_vae,
    "vae-16": lambda: ldm_vae(16),
    "text-clip-l": clip,
    "text-clip-l-flat": lambda: clip(prefix=""),
    "text-clip-h": open_clip,
    "text-clip-g": lambda: clip(1280, 32),
    "text-t5xxl": t5,
    "controlnet-sd1-ldm": lambda: under("control_model.", ldm_controlnet()),
    "controlnet-sd2-ldm-bare": lambda: ldm_controlnet(1024),
    "controlnet-sd1-diffusers": lambda: diffusers_controlnet(_SD1),
    "controlnet-xl-diffusers": lambda: diffusers_controlnet(_XL, 3),
    "controlnet-xl-union": lambda: (
        diffusers_controlnet(_XL, 3)
        | affine("control_add_embedding.linear_1", 1280, 1536)
        | {"task_embedding": (6, 320)}
    ),
    "controlnet-flux": lambda: (
        diffusers_flux(double=5, single=10)
        | affine("controlnet_x_embedder", 3072, 64)
        | affine("controlnet_blocks.0", 3072, 3072)
    ),
    "controlnet-sd3": lambda: (
        diffusers_sd3(6)
        | affine("pos_embed_input.proj", 384, 16, 2, 2)
        | affine("controlnet_blocks.0", 384, 384)
    ),
    "ip-adapter-sd1": ip_adapter,
    "ip-adapter-sd1-plus": lambda: ip_adapter(form="plus"),
    "ip-adapter-sd1-full": lambda: ip_adapter(form="full"),
    "ip-adapter-sd1-face-id": lambda: ip_adapter(form="face id"),
    "ip-adapter-xl": lambda: ip_adapter(2048, 70, image=1280),
    "ip-adapter-flux": lambda: {
        "ip_adapter_proj_model.proj.weight": (16384, 768),
        "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (3072, 4096),
    },
    "upscaler-esrgan": esrgan,
    "upscaler-real-esrgan": real_esrgan,
    "upscaler-compact": compact_esrgan,
    "upscaler-swinir": lambda: (
        affine("conv_first", 180, 3, 3, 3)
        | affine("layers.0.residual_group.blocks.0.norm1", 180)
        | affine("conv_last", 3, 64, 3, 3)
    ),
}
FILES = CHECKPOINTS | ADAPTERS | SMALL


def write_named(folder, name, **changes):
    """Write the file of this name; see `FILES`."""
    return write(folder / f"{name}.safetensors", FILES[name](), **changes)
