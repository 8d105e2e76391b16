"""The wire forms of requests: every documented field, read leniently, nothing resolved yet.

`parse` is the only way in. Fields that nobody documented are ignored, as the hosted API does.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    JsonValue,
    ValidationError,
    WithJsonSchema,
)

from serve_app import errors
from serve_app.api.requests import coerce
from serve_app.api.requests.body import Fields
from serve_app.api.requests.scheduler import SCHEDULER_BY_LOWER, SCHEDULERS
from serve_app.fairness import MAX_PRIORITY
from serve_app.images.inline import Inline, Value
from serve_app.types import ControlType, Fill, MaskMode, SafetyAction

__all__ = [
    "MAX_LORA_STRENGTH",
    "ControlNetBody",
    "FetchBody",
    "Flag",
    "GenerationBody",
    "Id",
    "Image",
    "Integer",
    "KeyBody",
    "Number",
    "OutpaintBody",
    "ReloadBody",
    "WireModel",
    "between",
    "field_message",
    "given",
    "parse",
]

MAX_LORA_STRENGTH = 10  # documented are 0.1 to 1; sliders are used with up to 10, and below 0
_MAX_CONTROL_SCALE = 5  # documented; 0 is for sliders

# diffusers' names and the API's own spelling, which its A1111 page maps to the SDE variant.
_ALGORITHMS = ("dpmsolver", "dpmsolver++", "dpmsolver+++", "sde-dpmsolver", "sde-dpmsolver++")


def _union(*types: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": name} for name in (*types, "null")]})


def between(low: float, high: float) -> AfterValidator:
    """Make the check of a number's range; both ends are in it."""

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise coerce.problem(f"must be between {low:g} and {high:g}")
        return value

    return AfterValidator(check)


def _check_strengths(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(-MAX_LORA_STRENGTH <= value <= MAX_LORA_STRENGTH for value in values):
        raise coerce.problem(f"must be between -{MAX_LORA_STRENGTH} and {MAX_LORA_STRENGTH}")
    return values


def _check_scales(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= value <= _MAX_CONTROL_SCALE for value in values):
        raise coerce.problem(f"must be between 0 and {_MAX_CONTROL_SCALE}")
    return values


def _to_control_types(value: JsonValue) -> tuple[ControlType, ...]:
    try:
        return tuple(ControlType(name.lower()) for name in coerce.to_names(value))
    except ValueError:
        raise coerce.problem(f"must be one of {', '.join(ControlType)}") from None


def _to_scheduler(value: JsonValue) -> str:
    name = SCHEDULER_BY_LOWER.get(coerce.to_id(value).lower())
    if name is None:
        raise coerce.problem(f"must be one of {', '.join(SCHEDULERS)}")
    return name


def _to_algorithm(value: JsonValue) -> str | None:
    name = coerce.to_id(value).lower()
    if name in ("no", "none"):
        return None
    if name not in _ALGORITHMS:
        raise coerce.problem(f"must be one of none, {', '.join(_ALGORITHMS)}")
    return name


def _to_safety_action(value: JsonValue) -> SafetyAction:
    try:
        return SafetyAction(coerce.to_id(value).lower())
    except ValueError:
        raise coerce.problem(f"must be one of {', '.join(SafetyAction)}") from None


def _to_mask_mode(value: JsonValue) -> MaskMode:
    try:
        return MaskMode(coerce.to_id(value).lower())
    except ValueError:
        raise coerce.problem(f"must be one of {', '.join(MaskMode)}") from None


def _to_fill(value: JsonValue) -> Fill:
    try:
        return Fill(coerce.to_id(value).lower())
    except ValueError:
        raise coerce.problem(f"must be one of {', '.join(Fill)}") from None


def _optional(read: Callable[[JsonValue], object]) -> BeforeValidator:
    return BeforeValidator(coerce.optional(read))


Integer = Annotated[int | None, _optional(coerce.to_int), _union("integer", "string")]
Number = Annotated[float | None, _optional(coerce.to_float), _union("number", "string")]
Flag = Annotated[bool, BeforeValidator(coerce.to_flag), _union("string", "boolean")]
Text = Annotated[str | None, BeforeValidator(coerce.to_text), _union("string")]
Id = Annotated[str | None, _optional(coerce.to_id), _union("string", "integer")]
Names = Annotated[tuple[str, ...], BeforeValidator(coerce.to_names), _union("string")]
Image = Annotated[str | InstanceOf[Inline] | None, _optional(coerce.to_image), _union("string")]


class WireModel(BaseModel):
    """Base of the request forms. `key` is taken from the body before, and never kept."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class GenerationBody(WireModel):
    """Text to image, image to image and inpainting."""

    model_id: Id = Field(None, description="Model to use.")
    prompt: Text = Field(None, description="What the image shows.")
    negative_prompt: Text = Field(None, description="What the image must not show.")
    init_image: Image = Field(
        None, description="Picture to start from: URL, base64 or data URI. PNG, JPEG or WebP."
    )
    mask_image: Image = Field(None, description="White is repainted, black is kept.")
    width: Integer = Field(
        None, description="Pixels; rounded down to a multiple of 8, at most 1024."
    )
    height: Integer = Field(None, description="Pixels; as width.")
    aspect_ratio: Id = Field(None, description="Not served: ask for width and height.")
    samples: Annotated[Integer, between(1, 4)] = Field(None, description="Images, 1 to 4.")
    num_inference_steps: Integer = Field(None, description="Denoising steps; kept in 1 to 50.")
    steps: Integer = Field(None, description="As num_inference_steps; the name on inpaint.")
    safety_checker: Flag = Field(True, description="yes: replace images found not safe for work.")
    safety_checker_type: Annotated[
        SafetyAction,
        BeforeValidator(_to_safety_action),
        WithJsonSchema({"enum": [*SafetyAction, None]}),
    ] = Field(SafetyAction.TEXT, description="What replaces such an image.")
    enhance_prompt: Flag = Field(True, description="yes: append the model's style words.")
    enhance_style: Id = Field(None, description="Style of the enhancement.")
    guidance_scale: Annotated[Number, between(1, 20)] = Field(None, description="1 to 20.")
    strength: Annotated[Number, between(0, 1)] = Field(
        None, description="0 to 1; 1 destroys the init image fully."
    )
    scheduler: Annotated[
        str | None,
        _optional(_to_scheduler),
        WithJsonSchema({"enum": [*SCHEDULERS, None]}),
    ] = Field(None, description="Noise schedule; the model's own when absent.")
    seed: Annotated[int | None, _optional(coerce.to_seed), _union("integer", "string")] = Field(
        None, description="Null or -1: drawn at random; taken modulo 2^32."
    )
    tomesd: Flag = Field(True, description="yes: merge tokens, faster.")
    use_karras_sigmas: Flag = Field(True, description="yes: noise levels of Karras et al.")
    algorithm_type: Annotated[str | None, BeforeValidator(_to_algorithm), _union("string")] = Field(
        None, description="For DPMSolverMultistepScheduler: dpmsolver+++."
    )
    vae: Id = Field(None, description="Custom VAE of the catalogue.")
    lora_model: Names = Field((), description="LoRA ids of the catalogue, comma separated.")
    lora_strength: Annotated[
        tuple[float, ...],
        BeforeValidator(coerce.to_floats),
        AfterValidator(_check_strengths),
        _union("string", "number"),
    ] = Field((), description="Strength of each LoRA, -10 to 10, comma separated; one is for all.")
    embeddings_model: Names = Field((), description="Textual inversions, comma separated.")
    multi_lingual: Flag = Field(False, description="yes: translate the prompt.")
    panorama: Flag = Field(False, description="yes: a panorama.")
    self_attention: Flag = Field(False, description="yes: self-attention guidance.")
    upscale: Annotated[
        int, BeforeValidator(coerce.to_upscale), _union("string", "integer", "boolean")
    ] = Field(1, description="no, yes (2), 1, 2 or 3.")
    highres_fix: Flag = Field(False, description="yes: paint small first, then refine.")
    clip_skip: Annotated[Integer, between(1, 8)] = Field(
        None,
        validation_alias=AliasChoices("clip_skip", "clipskip"),
        description="1 to 8; 1 takes the last layer of the text encoder.",
    )
    base64: Flag = Field(False, description="yes: links lead to base64 text.")
    temp: Flag = Field(False, description="yes: links end after 24 hours.")
    webhook: Annotated[str | None, _optional(coerce.to_url), _union("string")] = Field(
        None, description="Address that gets a POST when the job is done."
    )
    track_id: Annotated[JsonValue, BeforeValidator(coerce.to_json), _union("string", "integer")] = (
        Field(None, description="Given back to the webhook.")
    )
    ip_adapter_id: Id = Field(None, description="IP adapter of the catalogue.")
    ip_adapter_scale: Annotated[Number, between(0, 1)] = Field(
        None, description="How strongly its picture acts, 0 to 1; 0.6 when absent."
    )
    ip_adapter_image: Image = Field(None, description="Picture that it shows the model; needed.")
    instant_response: Flag = Field(False, description="yes: answer at once, fetch later.")
    priority: Annotated[Integer, between(-MAX_PRIORITY, MAX_PRIORITY)] = Field(
        None,
        description="-4 to 4: beside other jobs, each step up counts twice as much; above 0 as the "
        "key allows. An extension.",
    )
    exclusive: Flag = Field(
        False, description="yes: share no computation with other requests. An extension."
    )
    full_frame: Flag = Field(
        False, description="yes: inpaint on the whole picture, not on a crop. An extension."
    )
    mask_mode: Annotated[
        MaskMode | None, _optional(_to_mask_mode), WithJsonSchema({"enum": [*MaskMode, None]})
    ] = Field(None, description="What greys of the mask mean; auto when absent. An extension.")
    invert_mask: Flag = Field(
        False, description="yes: black is repainted, white is kept. An extension."
    )
    mask_expand: Integer = Field(
        None, description="Pixels by which the mask grows, below 0 shrinks. An extension."
    )
    mask_blur: Integer = Field(
        None, description="Pixels inside the mask's edge over which it fades in. An extension."
    )
    fill: Annotated[Fill | None, _optional(_to_fill), WithJsonSchema({"enum": [*Fill, None]})] = (
        Field(
            None,
            description="What stands in the mask before the first step: original; blur where the "
            "picture grows. An extension.",
        )
    )
    padding: Integer = Field(
        None, description="Pixels around the mask that the model sees. An extension."
    )
    only_masked: Flag = Field(
        False, description="yes: enlarge a small mask's surroundings to paint them. An extension."
    )
    outpaint: Annotated[
        tuple[int, int, int, int] | None,
        _optional(coerce.to_room),
        _union("object", "string", "integer", "array"),
    ] = Field(
        None,
        description="Pixels that the picture grows by on the left, above, on the right and below. "
        "An extension.",
    )
    anchor: Annotated[tuple[float, float] | None, _optional(coerce.to_anchor), _union("string")] = (
        Field(
            None,
            description="Where the picture lies on a larger canvas of the width and height: "
            "center, left, top-left, ... An extension.",
        )
    )
    overlap_width: Integer = Field(
        None, description="Pixels of the picture that blend into what it grows by."
    )


class OutpaintBody(GenerationBody):
    """Outpainting: the picture on a larger canvas. Its defaults are those of the hosted call."""

    init_image: Image = Field(
        None,
        validation_alias=AliasChoices("image", "init_image"),
        description="Picture to grow: URL, base64 or data URI. PNG, JPEG or WebP.",
    )
    prompt: Text = Field("high quality", description="What the image shows.")
    negative_prompt: Text = Field("low quality", description="What the image must not show.")
    width: Integer = Field(1280, description="Pixels of the canvas.")
    height: Integer = Field(720, description="Pixels of the canvas.")
    num_inference_steps: Integer = Field(10, description="Denoising steps; kept in 1 to 50.")
    guidance_scale: Annotated[Number, between(1, 20)] = Field(8.0, description="1 to 20.")
    seed: Annotated[int | None, _optional(coerce.to_seed_unless_0), _union("integer", "string")] = (
        Field(None, description="Null, 0 or -1: drawn at random; taken modulo 2^32.")
    )
    temp: Flag = Field(True, description="yes: links end after 24 hours.")
    anchor: Annotated[tuple[float, float] | None, _optional(coerce.to_anchor), _union("string")] = (
        Field((0.5, 0.5), description="Where the picture lies on the canvas; center when absent.")
    )


class ControlNetBody(GenerationBody):
    """Any of these, with ControlNets."""

    controlnet_model: Names = Field(
        (), description="ControlNets of the catalogue, by id or by type, comma separated."
    )
    controlnet_type: Annotated[
        tuple[ControlType, ...],
        BeforeValidator(_to_control_types),
        _union("string"),
    ] = Field((), description="What each wants to see, comma separated; as the catalogue says.")
    auto_hint: Annotated[bool | None, _optional(coerce.to_flag), _union("string", "boolean")] = (
        Field(
            None,
            description="yes: make what the ControlNet wants to see of the picture; the default "
            "unless there is a control_image.",
        )
    )
    guess_mode: Flag = Field(
        False, description="yes: ControlNets act for the prompt only, which may be empty."
    )
    control_image: Image = Field(
        None, description="Picture that ControlNets see; the init image when absent."
    )
    controlnet_conditioning_scale: Annotated[
        tuple[float, ...],
        BeforeValidator(coerce.to_floats),
        AfterValidator(_check_scales),
        _union("number", "string"),
    ] = Field((), description="How strongly each acts, 0 to 5, comma separated; one is for all.")
    control_guidance_start: Annotated[Number, between(0, 1)] = Field(
        None, description="Share of the steps before they act. An extension."
    )
    control_guidance_end: Annotated[Number, between(0, 1)] = Field(
        None, description="Share of the steps until which they act. An extension."
    )
    embeddings_model: Names = Field(
        (),
        validation_alias=AliasChoices("embeddings_model", "embeddings"),
        description="Textual inversions, comma separated.",
    )


class FetchBody(WireModel):
    """Fetch and cancel by `request_id`."""

    request_id: Annotated[
        str | None, BeforeValidator(coerce.to_request_id), _union("integer", "string")
    ] = Field(
        None,
        validation_alias=AliasChoices("request_id", "id"),
        description="The id of the first reply.",
    )


class KeyBody(WireModel):
    """Calls that take nothing but the key."""


class ReloadBody(WireModel):
    """Model reload."""

    model_id: Id = Field(None, description="Model to bring back.")


Model = TypeVar("Model", bound=WireModel)


def given(fields: Fields) -> dict[str, Value]:
    """Return what is not absent; keys with stray blanks count where the exact key is absent."""
    found = {name: value for name, value in fields.items() if not coerce.is_absent(value)}
    return {name.strip(): value for name, value in found.items()} | found


def parse(model: type[Model], fields: Fields) -> Model:
    """Read the known fields that are `given`.

    Raises:
        errors.InvalidFields: with a message for each bad field.
    """
    try:
        return model.model_validate(given(fields))
    except ValidationError as exc:
        messages: dict[str, list[str]] = {}
        for detail in exc.errors(include_url=False, include_input=False):
            field = str(detail["loc"][0])
            messages.setdefault(field, []).append(field_message(field, detail["msg"]))
        raise errors.InvalidFields(messages) from None  # the cause would quote the input


def field_message(field: str, sentence_end: str) -> str:
    """Word a problem as the hosted API's framework (Laravel) does."""
    return f"The {field.replace('_', ' ')} {sentence_end}."
