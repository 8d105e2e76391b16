"""ControlNets that a request names: which they are, what they are shown, and how strongly they act.

Source: API pages "ControlNet", 2023 to 2026. A comma list of ids, or of control types, which stand
for the net of the catalogue that fits the model; types and scales in the same order. One scale
counts for all nets, a shorter list is filled up with 1.

Without a `control_image` the nets see the init picture, through the hint that their type asks for.
A net that cannot be shown what it needs is refused: its picture would look like a success.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from serve_app import errors
from serve_app.api.requests.schemas import ControlNetBody, GenerationBody, field_message
from serve_app.images.source import InputPicture
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.types import ControlNetUse, ControlType, Kind

__all__ = ["echo", "fields", "has_control", "ids", "kind_of", "pictures", "problems"]

_MAX_NETS = 5  # in one request; each costs half of what the denoiser does
_TYPES = frozenset(ControlType)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One net of a request. type: what it wants to see, if anybody says so."""

    name: str
    net: AddOn | None
    type: ControlType | None


def kind_of(body: ControlNetBody) -> Kind:
    """Return what is painted: on a mask, over the init picture, or anew.

    The init picture is painted over where a strength is asked for or the nets see another one.
    """
    if body.mask_image:
        return Kind.INPAINT
    is_painted_over = body.init_image and (body.control_image or body.strength is not None)
    return Kind.IMG2IMG if is_painted_over else Kind.TEXT2IMG


def has_control(body: GenerationBody) -> bool:
    """Whether it is a call for ControlNets."""
    return isinstance(body, ControlNetBody)


def ids(body: GenerationBody) -> tuple[str, ...]:
    """All ids that a request names; what is a control type may be none."""
    if not isinstance(body, ControlNetBody):
        return ()
    return tuple(name for name in body.controlnet_model if name not in _TYPES)


def pictures(body: GenerationBody, kind: Kind) -> dict[str, InputPicture | None]:
    """Return the pictures that nets see and that no call without nets has, by field."""
    if not isinstance(body, ControlNetBody):
        return {}
    if body.control_image:
        return {"control_image": body.control_image}
    return {"init_image": body.init_image} if kind is Kind.TEXT2IMG else {}


def echo(body: GenerationBody) -> dict[str, JsonValue]:
    """Return values that replies repeat and that nothing else of the job holds."""
    if not isinstance(body, ControlNetBody):
        return {}
    types = ",".join(body.controlnet_type) or None
    return {"controlnet_type": types, "auto_hint": _has_auto_hint(body)}


def _chosen(
    body: ControlNetBody, entry: ModelEntry, catalogue: Catalogue
) -> tuple[ControlNetUse, ...]:
    """Pair the nets with their scales and hints."""
    asked = list(_asked(body, entry, catalogue))
    scales = body.controlnet_conditioning_scale
    if len(scales) == 1:
        scales *= len(asked)
    filled = (*scales, *[1.0] * (len(asked) - len(scales)))
    return tuple(
        ControlNetUse(id=one.net.id, scale=scale, hint=_hint(body, one.type))
        for one, scale in zip(asked, filled, strict=True)
        if one.net is not None
    )


def fields(body: GenerationBody, entry: ModelEntry, catalogue: Catalogue) -> dict[str, object]:
    """Return what a spec says of its nets; of a request without problems."""
    if not isinstance(body, ControlNetBody):
        return {}
    start, end = body.control_guidance_start, body.control_guidance_end
    return {
        "controlnets": _chosen(body, entry, catalogue),
        "guess_mode": body.guess_mode,
        "control_start": 0.0 if start is None else start,
        "control_end": 1.0 if end is None else end,
    }


def problems(
    body: GenerationBody,
    kind: Kind,
    entry: ModelEntry,
    catalogue: Catalogue,
    models: Collection[ControlType] = (),
) -> dict[str, list[str]]:
    """Return why a request cannot have its nets, by field; empty if it can or wants none.

    models: types of hints that a model makes here.
    """
    if not isinstance(body, ControlNetBody):
        return {}
    if len(_names(body)) > _MAX_NETS:  # before any is looked up
        text = f"may not have more than {_MAX_NETS} ids"
        return {"controlnet_model": [field_message("controlnet_model", text)]}
    asked = list(_asked(body, entry, catalogue))
    found = {
        "controlnet_model": _model_problems(asked, entry, catalogue),
        "controlnet_type": _type_problems(body, asked),
        "auto_hint": _hint_problems(body, asked, models),
        "controlnet_conditioning_scale": _scale_problems(body, asked),
        **_picture_problems(body, kind, asked),
    }
    start, end = body.control_guidance_start or 0.0, body.control_guidance_end
    if end is not None and end <= start:
        found["control_guidance_end"] = ["must be greater than control_guidance_start"]
    return {
        field: [text if text[0].isupper() else field_message(field, text) for text in texts]
        for field, texts in found.items()
        if texts
    }


def _names(body: ControlNetBody) -> tuple[str, ...]:
    """Return the ids and types that stand for nets; a list of types alone names them too."""
    return body.controlnet_model or tuple(one.value for one in body.controlnet_type)


def _asked(body: ControlNetBody, entry: ModelEntry, catalogue: Catalogue) -> Iterator[_Asked]:
    """Find the nets."""
    for number, name in enumerate(_names(body)):
        net = _find(name, entry, catalogue)
        given = body.controlnet_type[number : number + 1]
        own = () if net is None else net.control
        named = (ControlType(name),) if name in _TYPES else ()
        known = (*given, *(one for one in named if one in own), *own[:1], *named)
        yield _Asked(name, net, known[0] if known else None)


def _find(name: str, entry: ModelEntry, catalogue: Catalogue) -> AddOn | None:
    """Look up a net by id, else the first for this model that is of the type of this name."""
    net = catalogue.find_add_on(name, "controlnet")
    if net is not None and net.fits(entry.id):
        return net
    return catalogue.find_controlnet(ControlType(name), entry.id) if name in _TYPES else None


def _has_auto_hint(body: ControlNetBody) -> bool:
    """Whether a hint is made; unless the request says, of what was not sent as a control image."""
    return not body.control_image if body.auto_hint is None else body.auto_hint


def _hint(body: ControlNetBody, control: ControlType | None) -> ControlType | None:
    if control is ControlType.INPAINT:
        return control
    return control if _has_auto_hint(body) else None


def _model_problems(asked: list[_Asked], entry: ModelEntry, catalogue: Catalogue) -> list[str]:
    if not asked:
        return ["field is required"]
    if not entry.has_unet:
        return [f"The model {entry.id} has no UNet, which ControlNets act on."]
    texts = []
    for name in dict.fromkeys(one.name for one in asked if one.net is None):
        shown = errors.echoed(name)
        if catalogue.find_add_on(name, "controlnet") is None:
            texts.append(f"No ControlNet of the id or type {shown} is in the catalogue.")
        else:
            texts.append(f"The ControlNet {shown} is not for the model {entry.id}.")
    return texts


def _type_problems(body: ControlNetBody, asked: list[_Asked]) -> list[str]:
    if len(body.controlnet_type) > len(asked):
        return ["has more values than controlnet_model has ids"]
    texts = []
    for one in asked:
        if one.net is None:
            continue
        own = one.net.control
        if one.type is None and _has_auto_hint(body):
            texts.append("field is required: it says which hint auto_hint makes")
        if one.type is not None and own and one.type not in own:
            texts.append(f"The ControlNet {one.net.id} is for {', '.join(own)}.")
    return texts


def _missing(control: ControlType) -> str:
    if control.setting is None:
        return "not made here"
    return f"made by a model that is not installed here (hints.{control.setting})"


def _hint_problems(
    body: ControlNetBody, asked: list[_Asked], models: Collection[ControlType]
) -> list[str]:
    if not _has_auto_hint(body):
        return []
    types = dict.fromkeys(one.type for one in asked if one.type and not one.type.can_be_made)
    return [
        f"Hints of the type {one} are {_missing(one)}; send one as control_image, with "
        "auto_hint no."
        for one in types
        if one not in models
    ]


def _scale_problems(body: ControlNetBody, asked: list[_Asked]) -> list[str]:
    is_longer = len(body.controlnet_conditioning_scale) > max(1, len(asked))
    return ["has more values than controlnet_model has ids"] if is_longer else []


def _picture_problems(
    body: ControlNetBody, kind: Kind, asked: list[_Asked]
) -> dict[str, list[str]]:
    if kind is Kind.INPAINT and not body.init_image:
        return {"init_image": ["field is required beside a mask_image"]}
    if not (body.init_image or body.control_image):
        return {"control_image": ["field is required, or an init_image"]}
    if kind is not Kind.INPAINT and any(one.type is ControlType.INPAINT for one in asked):
        return {"mask_image": ["field is required for a ControlNet of the type inpaint"]}
    return {}
