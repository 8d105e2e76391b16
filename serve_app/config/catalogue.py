"""Which models are served, and how their weights are had."""

from pathlib import Path

from pydantic import Field, SecretStr

from serve_app.config.components import Seconds, Section

__all__ = ["CatalogueConfig"]


class CatalogueConfig(Section):
    """Which models are served, and how their weights are had."""

    path: Path = Field(
        default=Path("configs/models"),
        description="Names the folder of the model files, one file per model or add-on.",
    )
    models: tuple[str, ...] | None = Field(
        default=None,
        description="Lists the ids of the models to serve; none: all that the folder has.",
    )
    refresh_s: Seconds = Field(
        default=5.0,
        gt=0,
        description="Sets the seconds between looks for entries that were added or removed at "
        "run time; an unknown id is looked up at once.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Names the folder of each node in which fetched weights are kept; none: "
        "`weights` in data_dir.",
    )
    copy_weights: bool = Field(
        default=False,
        description="Copies local weights to `cache_dir` before they are loaded, once per node, "
        "for weights on a shared folder that is slow to read.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Allows .bin, .ckpt, .pt and .pth weights, which run code when they are "
        "loaded.",
    )
    max_header_bytes: int = Field(
        default=16 * 1024**2,
        gt=0,
        le=100_000_000,
        description="Limits the bytes of a safetensors file's header; the format allows 100 MB.",
    )
    max_tensors: int = Field(
        default=20_000,
        ge=1,
        description="Limits the tensors of one safetensors file; SDXL in one file has 2,500.",
    )
    hub_endpoint: str = Field(
        default="https://huggingface.co",
        pattern=r"^https?://[^\s?#]+[^\s?#/]$",
        description="Sets the server from which `hub` sources are fetched.",
    )
    hub_cache: Path | None = Field(
        default=None,
        description="Names the folder of an existing hub cache. What it holds is not fetched, "
        "loads without the hub, and is not changed; none: what HF_HUB_CACHE names, or `hub` in "
        "HF_HOME.",
    )
    hub_token: SecretStr | None = Field(
        default=None,
        description="Sets the token for private repositories; no other token is ever sent.",
    )
    hub_timeout_s: Seconds = Field(
        default=10.0,
        gt=0,
        description="Limits the seconds that the hub may take to describe a file.",
    )
