"""Whole checkpoints."""

from tests.community_files.shapes import under
from tests.community_files.text_encoders import clip, open_clip, t5
from tests.community_files.unets import REFINER, XL, ldm_unet
from tests.community_files.vaes import ldm_vae

SCHEDULE = {"alphas_cumprod": ("F32", (1000,)), "betas": ("F32", (1000,))}


def ema_of(unet):
    """LDM keeps the copies under names without dots."""
    names = {name: "diffusion_model" + name.replace(".", "") for name in unet}
    copies = {f"model_ema.{names[name]}": ("F32", shape) for name, shape in unet.items()}
    return copies | {"model_ema.decay": ("F32", ()), "model_ema.num_updates": ("I64", ())}


def sd_checkpoint(text=768, channels=4, vae=True, texts=True, prefix="text_model."):
    shapes = under("model.diffusion_model.", ldm_unet(text, channels)) | SCHEDULE
    if vae:
        shapes |= under("first_stage_model.", ldm_vae())
    if texts and text == 768:
        encoder = clip(prefix=prefix)
        encoder[f"{prefix}embeddings.position_ids"] = ("I64", (1, 77))
        shapes |= under("cond_stage_model.transformer.", encoder)
    if texts and text == 1024:
        shapes |= under("cond_stage_model.model.", open_clip())
    return shapes


def xl_checkpoint(channels=4, vae=True, both=True):
    shapes = under("model.diffusion_model.", ldm_unet(channels=channels, **XL)) | SCHEDULE
    if vae:
        shapes |= under("first_stage_model.", ldm_vae())
    shapes |= under("conditioner.embedders.0.transformer.", clip())
    return shapes | (under("conditioner.embedders.1.model.", open_clip(1280, 32)) if both else {})


def refiner_checkpoint():
    shapes = under("model.diffusion_model.", ldm_unet(**REFINER)) | SCHEDULE
    shapes |= under("first_stage_model.", ldm_vae())
    return shapes | under("conditioner.embedders.0.model.", open_clip(1280, 32))


def all_in_one(transformer, *encoders, latents=16):
    """Flux and SD3 as people pack them. encoders: of clip_l, clip_g, t5xxl."""
    forms = {"clip_l": clip(), "clip_g": clip(1280, 32), "t5xxl": t5()}
    shapes = under("model.diffusion_model.", transformer) | under("vae.", ldm_vae(latents))
    for name in encoders:
        shapes |= under(f"text_encoders.{name}.transformer.", forms[name])
    return shapes
