"""`KeyRules`: what one API key may ask for, and the words of a refusal. Pure: stores count."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from serve_app import errors
from serve_app.fairness import MAX_PRIORITY
from serve_app.models.revision import asked_id
from serve_app.storage import names
from serve_app.types import Frozen, GenerationSpec, JobRequest

__all__ = ["MAX_LIFETIME_S", "MOST", "Feature", "KeyRules", "KeyUse", "placed"]

_WINDOW_S = 60.0
MAX_LIFETIME_S = 100 * 365.25 * 86_400.0  # of a key; what is longer has no date
MOST = 10**9  # of whatever is counted; larger numbers fit no column and no reply


class Feature(StrEnum):
    """Something that a request may ask for and a key may not."""

    TEXT2IMG = "text2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"
    CONTROLNET = "controlnet"
    LORA = "lora"
    EMBEDDING = "embedding"
    VAE = "vae"
    IP_ADAPTER = "ip_adapter"
    UPSCALE = "upscale"
    HIGHRES_FIX = "highres_fix"
    PANORAMA = "panorama"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a key has asked for so far, over all processes.

    num_open: jobs queued or processing. pictures: of this month, those of open jobs too.
    age_s: seconds since the job was accepted that fills the rate; None: there is none.
    """

    num_open: int = 0
    pictures: int = 0
    age_s: float | None = None


def _text(model_id: str) -> str:
    """Refuse what no database takes: NUL, lone surrogates."""
    if not model_id.isprintable():
        raise ValueError("contains characters that are not valid text")
    return model_id


def _prefix(text: str) -> str:
    """Refuse what leads out of the folder of results."""
    if not names.is_prefix(text):
        raise ValueError("must be one to three names of letters, digits, ._-, with slashes")
    return text


class KeyRules(Frozen):
    """Bounds of one key; none: as the settings say, or no bound where they say nothing."""

    requests_per_minute: int | None = Field(
        default=None, ge=1, le=MOST, description="generation calls accepted within 60 seconds"
    )
    max_open: int | None = Field(
        default=None, ge=0, le=MOST, description="jobs queued or processing at a time"
    )
    monthly_pictures: int | None = Field(
        default=None,
        ge=0,
        le=MOST,
        description="pictures per month, in UTC; what is not made is not counted",
    )
    models: tuple[Annotated[str, AfterValidator(_text)], ...] | None = Field(
        default=None, max_length=1000, description="ids of the models it may ask for"
    )
    features: tuple[Feature, ...] | None = Field(
        default=None, description="what its requests may use"
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        le=100,
        allow_inf_nan=False,
        description="part of the devices that it gets beside other keys; 1 where none is said",
    )
    max_priority: int | None = Field(
        default=None,
        ge=0,
        le=MAX_PRIORITY,
        description="highest `priority` that its calls may ask for; 0 where none is said",
    )

    storage_prefix: Annotated[str, AfterValidator(_prefix)] | None = Field(
        default=None,
        max_length=128,
        description="folders that results of its jobs are kept under, as customers/acme",
    )

    def over(self, defaults: "KeyRules") -> Self:
        """Fill in what these leave open."""
        return self.model_copy(
            update={
                name: value
                for name, value in defaults
                if getattr(self, name) is None and value is not None
            }
        )

    def check_use(self, use: KeyUse, samples: int) -> None:
        """Refuse what is too much.

        Raises:
            errors.TooManyOpen: as many jobs are open as may be.
            errors.RateLimited: too many jobs within a minute.
            errors.MonthlyLimit: the pictures of this month are used up.
        """
        if self.max_open is not None and use.num_open >= self.max_open:
            raise errors.TooManyOpen(self.max_open, use.num_open)
        if use.age_s is not None and use.age_s < _WINDOW_S:
            raise errors.RateLimited(_WINDOW_S - use.age_s)
        if self.monthly_pictures is not None and use.pictures + samples > self.monthly_pictures:
            raise errors.MonthlyLimit()

    def check_request(self, request: JobRequest) -> None:
        """Refuse what this key may not use.

        Raises:
            errors.NotAllowed: it names what that is.
        """
        spec = request.spec
        model_id = asked_id(spec.model_id)
        if self.models is not None and model_id not in self.models:
            raise errors.NotAllowed(f"This API key may not use the model {model_id}.")
        highest = self.max_priority or 0
        if request.priority > highest:
            raise errors.NotAllowed(f"This API key may not ask for a priority above {highest}.")
        if self.features is None:
            return
        asked = _features(spec) | ({Feature.WEBHOOK} if request.webhook else set())
        if forbidden := sorted(asked - set(self.features)):
            raise errors.NotAllowed(f"This API key may not use {', '.join(forbidden)}.")


def placed(request: JobRequest, rules: KeyRules) -> JobRequest:
    """Return the request with its results where those of the key are kept."""
    if rules.storage_prefix is None:
        return request
    plan = request.output
    moved = {
        field: tuple(names.prefixed(key, rules.storage_prefix) for key in getattr(plan, field))
        for field in ("keys", "hint_keys")
    }
    return request.model_copy(update={"output": plan.model_copy(update=moved)})


def _features(spec: GenerationSpec) -> set[Feature]:
    is_used = {
        Feature.CONTROLNET: bool(spec.controlnets),
        Feature.LORA: bool(spec.loras),
        Feature.EMBEDDING: bool(spec.embeddings),
        Feature.VAE: spec.vae is not None,
        Feature.IP_ADAPTER: spec.ip_adapter is not None,
        Feature.UPSCALE: spec.upscale > 1,
        Feature.HIGHRES_FIX: spec.highres_fix,
        Feature.PANORAMA: spec.panorama,
    }
    return {Feature(spec.kind.value)} | {feature for feature, used in is_used.items() if used}
