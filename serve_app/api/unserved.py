"""Parameters that this server does not honour yet: asked for, they get a reason, not silence."""

from collections.abc import Callable

from serve_app.api.schemas import GenerationBody

__all__ = ["reasons"]

_IS_ASKED: dict[str, tuple[Callable[[GenerationBody], bool], str]] = {
    "enhance_style": (
        lambda body: body.enhance_prompt and body.enhance_style is not None,
        "Styles are not served here.",
    ),
    "multi_lingual": (lambda body: body.multi_lingual, "Translation is not served here."),
    "panorama": (lambda body: body.panorama, "Panoramas are not served here."),
    "self_attention": (lambda body: body.self_attention, "Self-attention is not served here."),
    "highres_fix": (lambda body: body.highres_fix, "The highres fix is not served here."),
    "ip_adapter_id": (
        lambda body: body.ip_adapter_id is not None,
        "No IP adapter of this id is in the catalogue.",
    ),
    "ip_adapter_image": (
        lambda body: body.ip_adapter_image is not None,
        "IP adapters are not served here.",
    ),
}


def reasons(body: GenerationBody) -> dict[str, list[str]]:
    """Say which parameters ask for an effect that this server does not have, and why not."""
    return {field: [reason] for field, (is_asked, reason) in _IS_ASKED.items() if is_asked(body)}
