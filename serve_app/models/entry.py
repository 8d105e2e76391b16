"""`ModelEntry`: one file of `configs/models/`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from serve_app.config.components import Section
from serve_app.config.serving import DeploymentOptions
from serve_app.types import Kind

__all__ = [
    "AddOn",
    "AddOnType",
    "Enhancement",
    "Entry",
    "ModelDefaults",
    "ModelEntry",
    "ModelId",
    "read_entry",
]

ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]


class ModelDefaults(Section):
    """What a request gets that leaves the field out."""

    steps: int = Field(default=31, ge=1, le=50, description="denoising steps")
    guidance_scale: float = Field(default=7.5, ge=1, le=20)
    strength: float = Field(default=0.7, ge=0, le=1)
    scheduler: str = Field(default="UniPCMultistepScheduler", description="one of the 18 names")


class Enhancement(Section):
    """What `enhance_prompt: yes` appends. Empty where the checkpoint does not know the words."""

    prompt_suffix: str = Field(default="", description="appended to the prompt")
    negative_suffix: str = Field(default="", description="appended to the negative prompt")


class ModelEntry(Section):
    """One served model."""

    id: ModelId = Field(description="what clients send as model_id; never used as a path")
    name: str = Field(default="", description="for people")
    description: str = Field(default="", description="for people")
    category: Literal["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "flux"] = (
        Field(default="stable_diffusion", description="what model_list shows as model_category")
    )
    source: Path = Field(
        description="diffusers folder or single safetensors file, absolute or from the root folder"
    )
    base_config: Path | None = Field(
        default=None,
        description="for a single file: diffusers folder of the same architecture, whose weights "
        "are not read",
    )
    kinds: tuple[Kind, ...] = Field(min_length=1, description="calls that the model answers")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="weights and activations; float16 and bfloat16 for GPUs"
    )
    native_size_px: int = Field(
        default=512,
        ge=64,
        description="side the checkpoint was trained at; crops are never smaller",
    )
    size_multiple_px: int = Field(
        default=8,
        ge=8,
        le=64,
        multiple_of=8,
        description="sides are multiples of this: the factor by which the VAE shrinks a picture",
    )
    placement: Literal["own", "pool"] = Field(
        default="own",
        description="own: a deployment for this model; pool: replicas shared with other models",
    )
    instance_prompt: str | None = Field(default=None, description="put before each prompt")
    enhancement: Enhancement = Enhancement()
    defaults: ModelDefaults = ModelDefaults()
    # More calls than the engine has places, so that progress is told while others wait.
    serve: DeploymentOptions = DeploymentOptions(max_ongoing_requests=72, num_cpus=0.5)


AddOnType = Literal["lora", "vae", "embedding"]


class AddOn(Section):
    """One LoRA, VAE or embedding that requests may name; a file with a `type` is one."""

    id: ModelId = Field(description="what clients send; never used as a path")
    type: AddOnType
    name: str = Field(default="", description="for people")
    description: str = Field(default="", description="for people")
    source: Path = Field(description="safetensors file; for a VAE also a diffusers folder")
    models: tuple[ModelId, ...] = Field(default=(), description="models that it fits; none: all")
    trigger: str | None = Field(
        default=None, description="word of the prompt that an embedding stands for; none: its id"
    )

    def fits(self, model_id: str) -> bool:
        """Whether requests to this model may name it."""
        return not self.models or model_id in self.models


Entry = ModelEntry | AddOn


def read_entry(values: object) -> Entry:
    """Read an entry; what has a `type` is an add-on.

    Raises:
        ValidationError: it is neither.
    """
    is_add_on = isinstance(values, dict) and "type" in values
    return (AddOn if is_add_on else ModelEntry).model_validate(values)
