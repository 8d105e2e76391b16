"""The frozen values that cross processes: what a job asks for and what the graph hands on.

Nothing here holds a tensor, a PIL image or a handle, so every value pickles and most serialise to
JSON. Everybody imports this module; of ours it imports what is part of them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import AliasChoices, Field, JsonValue

from serve_app.fairness import MAX_PRIORITY, Stake
from serve_app.spec_parts import (
    ControlNetUse,
    ControlType,
    Fill,
    Frozen,
    IpAdapterUse,
    LoraUse,
    Masking,
    MaskMode,
    Outpaint,
)

__all__ = [
    "Api",
    "ControlNetUse",
    "ControlType",
    "Cost",
    "Fill",
    "Fit",
    "Frozen",
    "GenerationSpec",
    "ImageSource",
    "IpAdapterUse",
    "Job",
    "JobFailure",
    "JobRequest",
    "JobResult",
    "JobState",
    "Kind",
    "LoraUse",
    "MaskMode",
    "Masking",
    "Outpaint",
    "OutputPlan",
    "Picture",
    "PictureFormat",
    "Pictures",
    "PreparedImages",
    "SafetyAction",
    "Sight",
    "Size",
]


class Kind(StrEnum):
    """What a generation starts from."""

    TEXT2IMG = "text2img"
    IMG2IMG = "img2img"
    INPAINT = "inpaint"


class JobState(StrEnum):
    """Life of a job: queued -> processing -> success | failed | cancelled."""

    QUEUED = "queued"  # accepted, no driver holds it
    PROCESSING = "processing"  # a driver holds a lease on it
    SUCCESS = "success"  # every picture can be read
    FAILED = "failed"  # will not be tried again
    CANCELLED = "cancelled"  # asked for by the client, or the client left

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self in (JobState.SUCCESS, JobState.FAILED, JobState.CANCELLED)


class Api(StrEnum):
    """The family of paths a call came in by; it decides reply URLs and error codes."""

    V3 = "v3"
    V4 = "v4"
    V5 = "v5"
    V6 = "v6"
    V7 = "v7"
    OPENAI = "openai"  # /v1/images


class SafetyAction(StrEnum):
    """What replaces a picture that the safety checker flags (API page, `safety_checker_type`)."""

    BLUR = "blur"
    TEXT = "sensitive_content_text"
    PIXELATE = "pixelate"
    BLACK = "black"


class Fit(Frozen):
    """How an init picture decides the sides that were not asked for: by its shape."""

    height: int | None = Field(default=None, description="pixels asked for; at most one side is")
    width: int | None = None
    area_px: int = Field(ge=1, description="about so many pixels where neither was asked for")
    multiple_px: int = Field(ge=8, multiple_of=8, description="sides are multiples of it")
    min_px: int = Field(ge=8, description="least side")
    max_px: int = Field(ge=8, description="greatest side")
    max_area_px: int = Field(ge=1, description="most pixels of the picture")


class Size(Frozen):
    """What the pictures of a job are brought to: their size, and how a mask is read.

    With `fit` or `outpaint` the size is only what to expect until the init picture was read.
    """

    height: int = Field(ge=8, multiple_of=8, description="pixels")
    width: int = Field(ge=8, multiple_of=8, description="pixels")
    fit: Fit | None = Field(default=None, description="the init picture decides a side or both")
    outpaint: Outpaint | None = Field(default=None, description="the init picture grows")
    masking: Masking = Masking()


class GenerationSpec(Size):
    """All that decides the pixels; equal specs and images give equal pictures.

    Every value is resolved: defaults applied, the seed drawn, the prompt enhanced. Only the size
    may be left to the init picture, which nobody has read yet when a job is accepted.
    """

    model_id: str
    kind: Kind
    prompt: str
    negative_prompt: str = ""
    samples: int = Field(default=1, ge=1, le=4, description="pictures; sample i uses seed + i")
    steps: int = Field(ge=1, description="denoising steps of the noise schedule")
    guidance_scale: float = Field(default=7.5, ge=0)
    strength: float = Field(default=1.0, ge=0, le=1, description="share of the schedule that runs")
    scheduler: str = Field(description="one of the API's 18 scheduler names")
    use_karras_sigmas: bool = False
    algorithm_type: str | None = None
    seed: int = Field(ge=0, lt=2**32)
    clip_skip: int = Field(default=1, ge=1, le=8, description="1 = last layer of the text encoder")
    tomesd: bool = False
    loras: tuple[LoraUse, ...] = ()
    vae: str | None = None
    embeddings: tuple[str, ...] = ()
    ip_adapter: IpAdapterUse | None = None
    controlnets: tuple[ControlNetUse, ...] = ()
    guess_mode: bool = Field(default=False, description="ControlNets act without a prompt")
    control_start: float = Field(
        default=0.0, ge=0, le=1, description="share of the steps before ControlNets act"
    )
    control_end: float = Field(default=1.0, ge=0, le=1, description="share until they do")
    foreign: str = Field(default="", description="part of the prompt to be translated")
    expand: bool = Field(default=False, description="an expander may append to the prompt")
    upscale: int = Field(default=1, ge=1, le=3, description="factor to enlarge what was painted")
    upscaler: str | None = Field(default=None, description="add-on that enlarges; None: Lanczos")
    highres_fix: bool = Field(default=False, description="paint small first, then refine")
    self_attention: bool = Field(default=False, description="perturbed-attention guidance")
    panorama: bool = Field(default=False, description="paint through windows of the native size")
    exclusive: bool = Field(default=False, description="share no denoiser forward")
    full_frame: bool = Field(default=False, description="inpaint on the frame, never on a crop")
    fill: Fill = Field(default=Fill.ORIGINAL, description="what the repainted part begins with")
    padding_px: int | None = Field(default=None, ge=0, description="context around the mask")
    only_masked: bool = Field(default=False, description="enlarge the crop to the native size")

    @property
    def acting_controlnets(self) -> tuple[ControlNetUse, ...]:
        """Those with a scale; others cost nothing."""
        return tuple(use for use in self.controlnets if use.scale)

    @property
    def hints(self) -> tuple[ControlType | None, ...]:
        """What Preprocess makes of the control picture, for each ControlNet."""
        return tuple(use.hint for use in self.controlnets)

    @property
    def drawn_hints(self) -> tuple[ControlType, ...]:
        """The hints that are pictures of their own, each once."""
        drawn = (hint for hint in self.hints if hint is not None and hint.is_drawn)
        return tuple(dict.fromkeys(drawn))


class ImageSource(Frozen):
    """Where an input picture comes from: exactly one of a URL and a key of the object store."""

    field: str = Field(description="request field, named in errors: init_image, ...")
    url: str | None = None
    stored_key: str | None = None
    is_alpha_mask: bool = Field(
        default=False,
        description="a mask as OpenAI's: transparent is repainted, and its size is the picture's",
    )


class PictureFormat(StrEnum):
    """How result files are encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class OutputPlan(Frozen):
    """Where results go; names are reserved when the job is accepted, so a retry overwrites."""

    keys: tuple[str, ...] = Field(description="object-store keys, one per sample")
    hint_keys: tuple[str, ...] = Field(default=(), description="one per hint that is drawn")
    base64: bool = Field(default=False, description="also the form: text file instead of PNG")
    temp: bool = Field(default=False, description="links end after `storage.temp_ttl_s`")
    format: PictureFormat = PictureFormat.PNG
    quality: int = Field(default=100, ge=0, le=100, description="of JPEG and WebP")

    @property
    def files(self) -> tuple[str, ...]:
        """Keys of all that is written."""
        return (*self.keys, *self.hint_keys)


class JobRequest(Frozen):
    """What a client asked for, complete enough to be run again by any driver."""

    spec: GenerationSpec
    init_image: ImageSource | None = None
    mask_image: ImageSource | None = None
    ip_adapter_image: ImageSource | None = None
    control_image: ImageSource | None = None
    safety: SafetyAction | None = Field(default=None, description="None = not checked")
    output: OutputPlan
    api: Api = Api.V4
    key_id: str = Field(description="owner; never the key itself")
    base_url: str = Field(description="scheme and host that links in webhooks start with")
    priority: int = Field(
        default=0,
        ge=-MAX_PRIORITY,
        le=MAX_PRIORITY,
        exclude=True,  # a column of its own: programs of the version before read the row
        description="beside other jobs; each step up counts as twice the weight",
    )
    call_id: str = Field(
        default="",
        validation_alias=AliasChoices("call_id", "request_id"),
        serialization_alias="request_id",  # in rows that other versions read and wrote
        description="of the HTTP call, for log lines",
    )
    traceparent: str = Field(
        default="",
        exclude=True,  # rows have a column for it, which programs of other versions pass over
        description="of the span that took the HTTP call in; empty: there are no traces",
    )
    webhook: str | None = None
    track_id: JsonValue = None
    echo: dict[str, JsonValue] = Field(
        default_factory=dict, description="what replies repeat of the request, `tip` for people"
    )

    @property
    def pictures(self) -> tuple[ImageSource | None, ...]:
        """Init, mask, pictures for an IP adapter and for ControlNets, as Preprocess takes them."""
        return self.init_image, self.mask_image, self.ip_adapter_image, self.control_image


class Cost(Frozen):
    """What a job took: of the devices while it was painted, and of the store.

    The time of each tick is shared among the rows that it ran, so that the costs of all jobs add up
    to the time that the engines were at work.
    """

    row_steps: int = Field(default=0, ge=0, description="rows of the forwards of its steps")
    device_s: float = Field(default=0.0, ge=0, description="seconds of an engine, its share")
    stored_bytes: int = Field(default=0, ge=0, description="of its results")


class JobResult(Frozen):
    """What a finished job left behind."""

    keys: tuple[str, ...]
    nsfw: tuple[bool, ...] = Field(description="per picture: flagged by the safety checker")
    generation_time_s: float
    load_s: float = Field(default=0.0, description="waited until the model was in memory")
    ran: dict[str, JsonValue] = Field(
        default_factory=dict, description="where what ran differs from the request: scheduler, ..."
    )
    cost: Cost = Cost()


class JobFailure(Frozen):
    """Why a job failed, fit for the client."""

    code: str
    message: str
    fields: dict[str, list[str]] = Field(default_factory=dict)


class Job(Frozen):
    """One row of the job table."""

    id: int
    state: JobState
    request: JobRequest
    attempts: int = 0
    progress: float = Field(default=0.0, ge=0, le=1, description="share of denoising steps done")
    created_at: float = Field(description="seconds since the epoch")
    started_at: float | None = None
    finished_at: float | None = None
    result: JobResult | None = None
    failure: JobFailure | None = None
    weight: float = Field(default=1.0, gt=0, description="of its key when it was accepted")
    number: int = Field(default=0, description="grows with each job; no client may see it")

    @property
    def stake(self) -> Stake:
        """What those need to know who share something out."""
        return Stake(self.request.key_id, self.weight, self.request.priority)


@dataclass(frozen=True, slots=True)
class Picture:
    """One encoded picture. `data` is a PNG until Upload brings results to the asked format."""

    data: bytes
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """Preprocess -> Generator; init and mask are of the asked size, or the one that fits them.

    init: RGB; none: there are only pictures for an IP adapter or for ControlNets. mask: 8-bit grey,
    0 = keep, 255 = repaint; shades between, only in soft masks: how much. ip_adapter: RGB, of any
    size. controls: RGB, of the size of init, one per ControlNet; none: it is made of init and mask
    where the job is painted.
    """

    init: Picture | None = None
    mask: Picture | None = None
    ip_adapter: Picture | None = None
    controls: tuple[Picture | None, ...] = ()

    def drawn(self, spec: GenerationSpec) -> tuple[Picture, ...]:
        """The pictures of `spec.drawn_hints`, in their order."""
        made = dict(zip(spec.hints, self.controls, strict=True))
        found = (made[hint] for hint in spec.drawn_hints)
        return tuple(picture for picture in found if picture is not None)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Generator -> Safety -> Upload: the samples of one job, in order.

    load_s: seconds that the job waited until its model was in memory; painting is not in it.
    cost: of the painting; nothing is stored yet.
    """

    pictures: tuple[Picture, ...]
    nsfw: tuple[bool, ...]
    generation_time_s: float
    ran: dict[str, JsonValue]
    load_s: float = 0.0
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class Sight:
    """Generator -> ingress: how far a job at work is, for those who watch it.

    step: denoising steps done, of `steps`; 0 of 0 before the first. preview: JPEG of what is
    painted so far; empty: none that is newer than the one that the caller has. preview_step: when
    it was made; -1: there is none yet.
    """

    step: int
    steps: int
    preview: bytes = b""
    preview_step: int = -1
