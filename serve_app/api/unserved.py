"""Parameters that cannot be honoured: asked for, they get a reason, not silence.

What only the loaded weights can tell, such as a denoiser without the layers that `self_attention`
acts on, the Generator refuses in the same form.
"""

from collections.abc import Callable

from serve_app.api.schemas import GenerationBody
from serve_app.types import Kind

__all__ = ["reasons"]

_IS_ASKED: dict[str, tuple[Callable[[GenerationBody], bool], str]] = {
    "ip_adapter_id": (
        lambda body: body.ip_adapter_id is not None,
        "No IP adapter of this id is in the catalogue.",
    ),
    "ip_adapter_image": (
        lambda body: body.ip_adapter_image is not None,
        "IP adapters are not served here.",
    ),
}
_TEXT2IMG_ONLY: dict[str, Callable[[GenerationBody], bool]] = {
    "panorama": lambda body: body.panorama,
    "highres_fix": lambda body: body.highres_fix,
}


def reasons(body: GenerationBody, kind: Kind, can_translate: bool) -> dict[str, list[str]]:
    """Say which parameters ask for an effect that this call does not have, and why not."""
    found = {field: [reason] for field, (is_asked, reason) in _IS_ASKED.items() if is_asked(body)}
    if body.multi_lingual and not can_translate:
        found["multi_lingual"] = ["Translation is not served here."]
    if kind is not Kind.TEXT2IMG:
        for field, is_asked in _TEXT2IMG_ONLY.items():
            if is_asked(body):
                found[field] = [f"{field} is for text to image only."]
    return found
