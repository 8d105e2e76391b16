"""`ModelEntry` and `AddOn`: one file of `configs/models/`, or what was added at run time."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from serve_app.config.components import Section
from serve_app.config.serving import ModelOptions
from serve_app.models.revision import asked_id
from serve_app.types import ControlType, Kind

__all__ = [
    "FIELDS",
    "AddOn",
    "AddOnType",
    "Enhancement",
    "Entry",
    "HubSource",
    "ModelDefaults",
    "ModelEntry",
    "ModelId",
    "Revision",
    "anchored",
    "read_entry",
]

ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]

V = TypeVar("V")
Text = Annotated[str, StringConstraints(max_length=4096)]
# A blank at an end would be looked for in prompts as well, and nothing is in all of them.
Trigger = Annotated[str, StringConstraints(max_length=4096, pattern=r"^\S(.*\S)?$")]

_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no path holds NUL, nor what is no text
_MAX_PATH = 4096  # Linux's PATH_MAX

_PARTS = ("base_config", "base", "vae", "text_encoders")  # fields of a model
HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")  # of a diffusers repository


def _inside(path: str) -> str:
    """Refuse what leads out of the folder that it starts from."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError("must be a path inside the folder")
    return path


InnerPath = Annotated[str, StringConstraints(max_length=512), AfterValidator(_inside)]
Revision = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"),
    AfterValidator(_inside),  # the cache makes a file name of it
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Manifest = Annotated[
    Annotated[Sha256, Tag("[hash]")]
    | Annotated[dict[InnerPath, Sha256], Field(max_length=10_000), Tag("[hashes]")],
    Discriminator(lambda value: "[hash]" if isinstance(value, str) else "[hashes]"),
]


class HubSource(Section):
    """A repository of a model hub."""

    hub: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="organisation/name",
    )
    revision: Revision = Field(default="main", description="branch, tag or commit")
    file: InnerPath | None = Field(
        default=None, description="one safetensors file of it; none: the whole as a folder"
    )
    files: tuple[Text, ...] = Field(
        default=HUB_FILES,
        min_length=1,
        max_length=256,
        description="of a folder: patterns of what is fetched",
    )


def _plain(path: Path) -> Path:
    """Refuse what the system could not look up."""
    if len(str(path)) > _MAX_PATH or _UNUSABLE.search(str(path)):
        raise ValueError(f"must be a path of at most {_MAX_PATH} characters, without NUL")
    return path


def _source_tag(value: object) -> str:
    return "[path]" if isinstance(value, str | Path) else "[hub]"


Source = Annotated[
    Annotated[Path, AfterValidator(_plain), Tag("[path]")] | Annotated[HubSource, Tag("[hub]")],
    Discriminator(_source_tag),
]


class _Files(Section):
    """What models and add-ons say of their files."""

    id: ModelId = Field(description="what clients send; never used as a path")
    source: Source
    sha256: Manifest | None = Field(
        default=None,
        description="hash of a single file, or hashes by relative path, every weight file among "
        "them; what differs is refused",
    )

    @property
    def has_revisions(self) -> bool:
        """Whether other revisions of the weights can be asked for: those of a hub."""
        return isinstance(self.source, HubSource)

    @property
    def path(self) -> Path:
        """The source, once `weights.resolve` has brought it onto this node."""
        assert isinstance(self.source, Path), "entries are resolved before they are loaded"
        return self.source


def _by_category(values: Mapping[str, V], others: V) -> Callable[[dict[str, Any]], V]:
    """Make a default that depends on the category, which pydantic has read by then."""
    return lambda read: values.get(read.get("category", ""), others)


class ModelDefaults(Section):
    """What a request gets that leaves the field out."""

    steps: int = Field(default=31, ge=1, le=50, description="denoising steps")
    guidance_scale: float = Field(default=7.5, ge=1, le=20)
    strength: float = Field(default=0.7, ge=0, le=1)
    scheduler: Text = Field(default="UniPCMultistepScheduler", description="one of the 18 names")


class Enhancement(Section):
    """What `enhance_prompt: yes` appends. Empty where the checkpoint does not know the words."""

    prompt_suffix: Text = Field(default="", description="appended to the prompt")
    negative_suffix: Text = Field(default="", description="appended to the negative prompt")
    styles: bool = Field(
        default=True,
        description="false: the checkpoint does not know the words of enhance_style and of the "
        "prompt expander",
    )


class ModelEntry(_Files):
    """One served model; `id` is what clients send as model_id."""

    name: Text = Field(default="", description="for people")
    description: Text = Field(default="", description="for people")
    category: Literal["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"] = (
        Field(default="stable_diffusion", description="what model_list shows as model_category")
    )
    source: Source = Field(
        description="diffusers folder or single safetensors file, absolute or from the root "
        "folder; or where on a hub it is"
    )
    base_config: Source | None = Field(
        default=None,
        description="for a single file: diffusers folder of the same architecture, whose weights "
        "are not read; none: known by the file's header",
    )
    base: Source | None = Field(
        default=None,
        description="for a single file: diffusers folder of the same architecture, from which "
        "comes what the file lacks",
    )
    vae: Source | None = Field(
        default=None,
        description="in place of the model's own: a diffusers folder of a VAE, or a file of one",
    )
    text_encoders: Source | None = Field(
        default=None,
        description="in place of the model's own: diffusers folder with text encoders and their "
        "tokenizers",
    )
    variant: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")] | None
    ) = Field(
        default=None,
        description="of a diffusers folder: which weight files, fp16 for `model.fp16.safetensors`; "
        "none: the whole ones, and those of a variant where they lack",
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        default=None, description="what the denoiser predicts; none: as the files say"
    )
    zero_snr: bool | None = Field(
        default=None,
        description="whether it was trained to a signal of zero; none: as the files say",
    )
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = Field(
        default=None, description="of the steps; none: as the files say"
    )
    guidance_rescale: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share by which guided predictions get the contrast of unguided ones, against "
        "overexposure; 0.7 is usual for models with zero_snr",
    )
    max_guidance: float | None = Field(
        default=None, ge=0, le=20, description="a request's guidance_scale is lowered to this"
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        le=50,
        description="a request's steps are lowered to this; for turbo, lightning and LCM models",
    )
    kinds: tuple[Kind, ...] = Field(
        min_length=1, max_length=len(Kind), description="calls that the model answers"
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default_factory=_by_category({"stable_diffusion": "float32"}, "auto"),
        description="weights and activations; auto: half precision on a GPU, float32 elsewhere; "
        "none: auto, but float32 for stable_diffusion",
    )
    native_size_px: int = Field(
        default_factory=_by_category({"stable_diffusion": 512}, 1024),
        ge=64,
        description="side the checkpoint was trained at, crops are never smaller; none: by the "
        "category",
    )
    warm_sizes_px: tuple[int, ...] = Field(
        default=(),
        max_length=32,
        description="sides of further squares whose row caps are measured at start-up, not later",
    )
    size_multiple_px: int = Field(
        default_factory=_by_category({"stable_diffusion_3": 16, "flux": 16}, 8),
        ge=8,
        le=64,
        multiple_of=8,
        description="sides are multiples of this: the factor by which the VAE shrinks a picture, "
        "twice that for a transformer; none: by the category",
    )
    upscaler: ModelId | None = Field(
        default=None,
        description="add-on that `upscale` enlarges pictures with; none: `http.upscaler`, and "
        "Lanczos resampling where that is none either",
    )
    placement: Literal["own", "pool"] = Field(
        default="own",
        description="own: a deployment for this model; pool: replicas shared with other models",
    )
    instance_prompt: Text | None = Field(default=None, description="put before each prompt")
    enhancement: Enhancement = Enhancement()
    defaults: ModelDefaults = ModelDefaults()
    serve: ModelOptions = ModelOptions()

    @property
    def has_unet(self) -> bool:
        """Whether it is of a family with a UNet, whose text encoders are CLIP's alone."""
        return self.category in ("stable_diffusion", "stable_diffusion_xl")

    @property
    def parts(self) -> dict[str, Source]:
        """What it is loaded from besides its source, by field."""
        named = {name: getattr(self, name) for name in _PARTS}
        return {name: source for name, source in named.items() if source is not None}

    @model_validator(mode="after")
    def _needs_others(self) -> Self:
        for name, source in self.parts.items():
            if source == self.source:
                raise ValueError(f"{name} is the source itself; name a folder beside it")
        if self.base is not None and self.base_config is not None:
            raise ValueError("base has settings too; leave base_config out")
        return self


AddOnType = Literal["lora", "vae", "embedding", "ip_adapter", "controlnet", "upscaler"]


class AddOn(_Files):
    """A LoRA, VAE, embedding, IP adapter, ControlNet or upscaler; a file with `type` is one."""

    type: AddOnType
    name: Text = Field(default="", description="for people")
    description: Text = Field(default="", description="for people")
    source: Source = Field(
        description="safetensors file, for a VAE or ControlNet also a diffusers folder, for an IP "
        "adapter a folder with its image encoder; or where on a hub it is"
    )
    models: tuple[ModelId, ...] = Field(
        default=(), max_length=1000, description="models that it fits; none: all"
    )
    trigger: Trigger | None = Field(
        default=None, description="word of the prompt that an embedding stands for; none: its id"
    )

    control: tuple[ControlType, ...] = Field(
        default=(),
        max_length=len(ControlType),
        description="what a ControlNet wants to see: canny, depth, ...; requests may also name it "
        "by this; none: requests say it",
    )

    def fits(self, model_id: str) -> bool:
        """Whether requests to this model may name it."""
        return not self.models or asked_id(model_id) in self.models

    @model_validator(mode="after")
    def _has_its_fields(self) -> Self:
        if self.control and self.type != "controlnet":
            raise ValueError("control is for a ControlNet")
        return self


Entry = ModelEntry | AddOn
_SECTIONS = (ModelEntry, AddOn, HubSource, ModelDefaults, Enhancement, ModelOptions)
FIELDS = frozenset(name for section in _SECTIONS for name in section.model_fields)
"""Every name that may stand in the file of an entry, at any depth."""
E = TypeVar("E", bound=_Files)


def anchored(entry: E, root_dir: Path) -> E:
    """Resolve relative paths against the root folder."""
    changes: dict[str, object] = {}
    if isinstance(entry.source, Path):
        changes["source"] = root_dir / entry.source
    if isinstance(entry, ModelEntry):
        parts = entry.parts.items()
        changes |= {name: root_dir / part for name, part in parts if isinstance(part, Path)}
    return entry.model_copy(update=changes)


def read_entry(values: object) -> Entry:
    """Read an entry; what has a `type` is an add-on.

    Raises:
        ValidationError: it is neither.
    """
    is_add_on = isinstance(values, dict) and "type" in values
    return (AddOn if is_add_on else ModelEntry).model_validate(values)
