"""How a mask is read and what is made of it: fields that the hosted API does not have."""

from serve_app.api.requests.schemas import GenerationBody, field_message
from serve_app.config import HttpConfig
from serve_app.types import Masking, MaskMode

__all__ = ["masking", "problems"]


def masking(body: GenerationBody) -> Masking:
    """Return what a body says of its mask; of a request without problems."""
    return Masking(
        mode=body.mask_mode or MaskMode.AUTO,
        invert=body.invert_mask,
        expand_px=body.mask_expand or 0,
        blur_px=body.mask_blur,
    )


def problems(body: GenerationBody, http: HttpConfig) -> dict[str, list[str]]:
    """Return which numbers are out of bounds; empty if none is."""
    expand_px, blur_px = http.max_mask_expand_px, http.max_mask_blur_px
    bounds = {
        "mask_expand": (body.mask_expand, -expand_px, expand_px),
        "mask_blur": (body.mask_blur, 0, blur_px),
        "padding": (body.padding, 0, http.max_padding_px),
    }
    return {
        field: [field_message(field, f"must be between {low} and {high}")]
        for field, (value, low, high) in bounds.items()
        if value is not None and not low <= value <= high
    }
