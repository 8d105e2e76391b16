"""Which tensors of a single file belong to which component of a pipeline. Needs no torch."""

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["T5", "beginnings_of", "component_of", "held"]

Index = Mapping[str, Sequence[str]]  # library and class by component, as in model_index.json

_DENOISER = ("model.diffusion_model.", "diffusion_model.")
T5 = "T5EncoderModel"
# What the names of a component's tensors begin with, in the layouts that people pack files in.
_BEGINNINGS: Mapping[str, tuple[str, ...]] = {
    "unet": (*_DENOISER, "unet."),
    "transformer": (*_DENOISER, "transformer."),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
        "text_encoder.",
    ),
    "text_encoder_2": (
        "conditioner.embedders.1.model.",
        "conditioner.embedders.0.model.",
        "text_encoders.clip_g.transformer.",
        "text_encoder_2.",
    ),
    "text_encoder_3": ("text_encoder_3.",),
    T5: ("text_encoders.t5xxl.transformer.",),
}
# The tensors of a denoiser alone may have no beginning; one of these is among them then.
_BARE = (
    "input_blocks.0.0.weight",
    "conv_in.weight",
    "double_blocks.0.img_attn.qkv.weight",
    "joint_blocks.0.x_block.attn.qkv.weight",
    "transformer_blocks.0.attn.add_q_proj.weight",
)


def beginnings_of(component: str, class_name: str) -> tuple[str, ...]:
    """Return what the names of its tensors may begin with."""
    if class_name == T5:
        return (*_BEGINNINGS[T5], f"{component}.")
    return _BEGINNINGS.get(component, ())


def component_of(name: str, index: Index) -> str | None:
    """Return the component of a pipeline that a tensor belongs to; None: to none by its name."""
    for component, (_, class_name) in index.items():
        if name.startswith(beginnings_of(component, class_name)):
            return component
    return None


def held(names: Iterable[str], index: Index) -> set[str]:
    """Return the components of a pipeline that a file with these tensors holds."""
    names = list(names)
    found = {component_of(name, index) for name in names} - {None}
    if not set(names).isdisjoint(_BARE):
        found |= {"unet", "transformer"} & index.keys()
    return {component for component in found if component is not None}
