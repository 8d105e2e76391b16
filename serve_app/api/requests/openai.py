"""A call of OpenAI's image API as one of ours: its own fields translated, all others as they are.

What the API has and a diffusion model cannot do is refused with the reason.

Source: OpenAI's API reference, "Create image" and "Create image edit", November 2026.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema

from serve_app import errors
from serve_app.api.requests import coerce, control
from serve_app.api.requests.body import Fields
from serve_app.api.requests.outpaint import has_outpaint
from serve_app.api.requests.schemas import (
    ControlNetBody,
    Flag,
    GenerationBody,
    Id,
    Image,
    Integer,
    WireModel,
    between,
    field_message,
    given,
    parse,
)
from serve_app.images.inline import Value
from serve_app.models import Catalogue, ModelEntry
from serve_app.types import Kind, PictureFormat

__all__ = ["EditBody", "ImagesBody", "kind_of", "read", "translate"]

_SIDES = (64, 1024)  # pixels; as in the other families
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_MAX_STEPS = 50
_EFFORT = {"low": 0.5, "medium": 1.0, "high": 1.5, "hd": 1.5}  # share of the model's own steps
_AS_EVER = ("auto", "standard")
_CONTROLS = {"controlnet_model", "controlnet_type"}
_OF_EDITS = ("init_image", "mask_image", "strength")
_NO_PICTURE = "Pictures are painted over by /v1/images/edits, and here with ControlNets only."
_STEPS = ("num_inference_steps", "steps")


def _one_of(*names: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise coerce.problem(f"must be one of {', '.join(names)}")
        return value

    return AfterValidator(check)


def _to_pictures(value: Value) -> list[Value]:
    found = value if isinstance(value, list) else [value]
    return [one for one in found if not coerce.is_absent(one)]


class ImagesBody(WireModel):
    """Create image. Fields of ours, such as `steps` and `seed`, may stand beside these."""

    model: Id = Field(None, description="Model of the catalogue; may be left out where it is one.")
    prompt: Annotated[str | None, BeforeValidator(coerce.to_text)] = Field(
        None, description="What the image shows."
    )
    n: Annotated[Integer, between(1, 4)] = Field(None, description="Images, 1 to 4.")
    size: Id = Field(None, description="auto, or WIDTHxHEIGHT, sides of 64 to 1024.")
    quality: Annotated[Id, _one_of("auto", "standard", "low", "medium", "high", "hd")] = Field(
        None, description="low: half of the model's own steps; high, hd: half as many again."
    )
    response_format: Annotated[Id, _one_of("url", "b64_json")] = Field(
        None, description="Which of the two; both when absent."
    )
    output_format: Annotated[Id, _one_of(*PictureFormat)] = Field(None, description="png.")
    output_compression: Annotated[Integer, between(0, 100)] = Field(
        None, description="Quality of JPEG and WebP, 100 when absent."
    )
    background: Annotated[Id, _one_of("auto", "opaque", "transparent")] = None
    moderation: Annotated[Id, _one_of("auto", "low")] = None
    style: Annotated[Id, _one_of("vivid", "natural")] = None
    user: Annotated[JsonValue, BeforeValidator(coerce.to_json)] = Field(
        None, description="Given back to a webhook as track_id."
    )
    stream: Flag = Field(False, description="true: events, the last one holds the image.")
    partial_images: Annotated[Integer, between(0, 3)] = Field(
        None, description="Previews in a stream, at most."
    )

    @property
    def form(self) -> PictureFormat:
        """How the pictures are encoded."""
        return PictureFormat(self.output_format or "png")


class EditBody(ImagesBody):
    """Create image edit."""

    image: Annotated[
        list[Image],
        BeforeValidator(_to_pictures),
        WithJsonSchema({"type": "array", "items": {"type": "string", "format": "binary"}}),
    ] = Field(
        (), validate_default=True, description="Picture to change; a second one for an IP adapter."
    )
    mask: Image = Field(None, description="Transparent is repainted; of the size of the image.")
    input_fidelity: Annotated[Id, _one_of("low", "high")] = None


def read(fields: Fields, *, is_edit: bool) -> ImagesBody:
    """Read the fields that are OpenAI's.

    Raises:
        errors.InvalidFields: a value is bad, or asks for what cannot be done here.
    """
    asked = parse(EditBody if is_edit else ImagesBody, fields)
    if problems := _unserved(asked):
        raise errors.InvalidFields({field: [reason] for field, reason in problems.items()})
    return asked


def kind_of(asked: ImagesBody, body: GenerationBody) -> Kind:
    """Return what is to be done; with ControlNets as in the calls that are for them."""
    if isinstance(asked, EditBody):
        return Kind.INPAINT if body.mask_image or has_outpaint(body) else Kind.IMG2IMG
    return control.kind_of(body) if isinstance(body, ControlNetBody) else Kind.TEXT2IMG


def translate(
    asked: ImagesBody, fields: Fields, catalogue: Catalogue, *, has_checker: bool
) -> GenerationBody:
    """Make the call of ours; what OpenAI's fields do not say, ours may.

    Raises:
        errors.InvalidFields: a value is bad.
        errors.ModelNotFound: the model is not in the catalogue.
    """
    entry = _entry(asked, catalogue)
    theirs = {*EditBody.model_fields, "base64", "instant_response"}
    own = {name: value for name, value in given(fields).items() if name not in theirs}
    own |= {"model_id": entry.id, "prompt": asked.prompt}
    own.setdefault("track_id", asked.user)
    own |= _size(asked.size, entry) | _steps(asked.quality, own, entry)
    if asked.n is not None:
        own["samples"] = asked.n
    own.setdefault("safety_checker", has_checker)
    if isinstance(asked, EditBody):
        own |= _pictures(asked, own)
    if _CONTROLS & own.keys():
        controlled = parse(ControlNetBody, own)
        if controlled.controlnet_model or controlled.controlnet_type:
            return controlled
    if not isinstance(asked, EditBody) and (
        named := [one for one in _OF_EDITS if _is_named(own, one)]
    ):
        raise errors.InvalidFields({name: [_NO_PICTURE] for name in named})
    return parse(GenerationBody, own)


def _entry(asked: ImagesBody, catalogue: Catalogue) -> ModelEntry:
    entries = {entry.id: entry for entry in catalogue}
    if asked.model is None and len(entries) != 1:
        raise errors.InvalidFields({"model": [field_message("model", "field is required")]})
    name = asked.model or next(iter(entries))
    if name not in entries:
        raise errors.ModelNotFound(name)
    return entries[name]


def _size(size: str | None, entry: ModelEntry) -> dict[str, Value]:
    if size in (None, "auto"):
        return {}
    found, (least, most) = _SIZE.fullmatch(size or ""), _SIDES
    multiple = entry.size_multiple_px
    sides = [int(side) for side in found.groups()] if found else []
    if not sides or any(not least <= side <= most or side % multiple for side in sides):
        text = f"must be auto, or WIDTHxHEIGHT with sides of {least} to {most}, multiples of "
        raise errors.InvalidFields({"size": [field_message("size", f"{text}{multiple}")]})
    return {"width": sides[0], "height": sides[1]}


def _steps(quality: str | None, own: Fields, entry: ModelEntry) -> dict[str, Value]:
    if quality is None or quality in _AS_EVER or any(_is_named(own, name) for name in _STEPS):
        return {}
    steps = round(entry.defaults.steps * _EFFORT[quality])
    return dict.fromkeys(_STEPS, min(_MAX_STEPS, max(1, steps)))


def _is_named(own: Fields, name: str) -> bool:
    value = own.get(name)
    return not (coerce.is_absent(value) or coerce.is_none(value))


def _pictures(asked: EditBody, own: Fields) -> Mapping[str, Value]:
    image, *others = asked.image
    if others and not _is_named(own, "ip_adapter_id"):
        raise errors.InvalidFields({"image": [_images_text(len(asked.image))]})
    if _is_named(own, "init_image"):
        raise errors.InvalidFields({"init_image": ["The picture to change was sent twice."]})
    if asked.mask is not None and _is_named(own, "mask_image"):
        raise errors.InvalidFields({"mask_image": ["Two masks were sent."]})
    found: dict[str, Value] = {"init_image": image}
    found |= {} if asked.mask is None else {"mask_image": asked.mask}
    return found | ({"ip_adapter_image": others[0]} if others else {})


def _unserved(asked: ImagesBody) -> dict[str, str]:
    reasons = {
        "background": (
            asked.background == "transparent",
            "A transparent background is not served: the models paint every pixel.",
        ),
        "moderation": (
            asked.moderation == "low",
            "The moderation cannot be low: the safety checker has one strictness.",
        ),
        "style": (asked.style is not None, "The style is not served: see enhance_style."),
        "output_compression": (
            asked.output_compression not in (None, 100) and asked.form is PictureFormat.PNG,
            "The output_compression is for jpeg and webp: a png loses nothing.",
        ),
    }
    if isinstance(asked, EditBody):
        reasons |= {
            "image": (not 1 <= len(asked.image) <= 2, _images_text(len(asked.image))),
            "input_fidelity": (
                asked.input_fidelity == "high",
                "The input_fidelity cannot be high: a low strength keeps more of the image.",
            ),
        }
    return {field: reason for field, (is_asked, reason) in reasons.items() if is_asked}


def _images_text(number: int) -> str:
    if number == 0:
        return field_message("image", "field is required")
    return (
        f"The image field holds {number} images: a diffusion model changes one, and a second one "
        "may be shown to an IP adapter (ip_adapter_id)."
    )
