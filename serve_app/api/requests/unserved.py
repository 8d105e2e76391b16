"""Parameters that cannot be honoured: asked for, they get a reason, not silence.

What only the loaded weights can tell, such as a denoiser without the layers that `self_attention`
acts on, the Generator refuses in the same form.
"""

from serve_app.api.requests.control import has_control
from serve_app.api.requests.outpaint import has_outpaint
from serve_app.api.requests.schemas import GenerationBody
from serve_app.models import ModelEntry
from serve_app.types import Fill, Kind, MaskMode

__all__ = ["reasons"]


def reasons(
    body: GenerationBody, kind: Kind, entry: ModelEntry, *, can_translate: bool
) -> dict[str, list[str]]:
    """Return which parameters ask for an effect that this call does not have, and why."""
    asked = {
        "multi_lingual": (
            body.multi_lingual and not can_translate,
            "Translation is not served here.",
        ),
        "aspect_ratio": (
            body.aspect_ratio is not None,
            "aspect_ratio is not served here; use width and height instead.",
        ),
        **_of_unets(body, entry),
    }
    if has_control(body):
        reason = "panorama and ControlNets cannot be combined."
        asked |= {"panorama": (body.panorama, reason)}
    if kind is not Kind.TEXT2IMG:
        asked |= {
            "panorama": (body.panorama, "panorama is for text to image only."),
            "highres_fix": (body.highres_fix, "highres_fix is for text to image only."),
        }
    asked |= _of_masks(body, kind)
    return {field: [reason] for field, (is_asked, reason) in asked.items() if is_asked}


def _of_masks(body: GenerationBody, kind: Kind) -> dict[str, tuple[bool, str]]:
    """Fields of ours alone: what the hosted API has and does not look at is no error here."""
    if kind is Kind.INPAINT:
        reason = "overlap_width is for pictures that grow: ask for outpaint or an anchor."
        return {"overlap_width": (bool(body.overlap_width) and not has_outpaint(body), reason)}
    asked = {
        "mask_mode": body.mask_mode not in (None, MaskMode.AUTO),
        "invert_mask": body.invert_mask,
        "mask_expand": bool(body.mask_expand),
        "mask_blur": bool(body.mask_blur),
        "fill": body.fill not in (None, Fill.ORIGINAL),
        "padding": bool(body.padding),
        "only_masked": body.only_masked,
        "overlap_width": bool(body.overlap_width),
    }
    return {name: (is_asked, f"{name} is for inpainting only.") for name, is_asked in asked.items()}


def _of_unets(body: GenerationBody, entry: ModelEntry) -> dict[str, tuple[bool, str]]:
    if entry.has_unet:
        return {}
    reason = f"The model {entry.id} has no UNet, which is needed for it."
    return {
        "panorama": (body.panorama, reason),
        "self_attention": (body.self_attention, reason),
        "ip_adapter_id": (body.ip_adapter_id is not None, reason),
    }
