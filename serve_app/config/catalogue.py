"""Which models are served, and how their weights are had."""

from pathlib import Path

from pydantic import Field, SecretStr

from serve_app.config.components import Seconds, Section

__all__ = ["CatalogueConfig"]


class CatalogueConfig(Section):
    """Which models are served, and how their weights are had."""

    path: Path = Field(
        default=Path("configs/models"), description="folder of the model files, one per model"
    )
    models: tuple[str, ...] | None = Field(
        default=None, description="ids to serve; none: every file of the folder"
    )
    refresh_s: Seconds = Field(
        default=5.0,
        gt=0,
        description="seconds between looks for entries that were added or removed at run time; an "
        "unknown id is looked for at once",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="folder of each node for fetched weights; none: `weights` in data_dir",
    )
    copy_weights: bool = Field(
        default=False,
        description="copy local weights to `cache_dir` before they are loaded, once per node; for "
        "weights on a shared folder that is slow to read",
    )
    allow_pickle: bool = Field(
        default=False,
        description="allow .bin, .ckpt, .pt and .pth weights, which run code when they are loaded",
    )
    max_header_bytes: int = Field(
        default=16 * 1024**2,
        gt=0,
        le=100_000_000,
        description="bytes of the header of a safetensors file; the format allows 100 MB",
    )
    max_tensors: int = Field(
        default=20_000, ge=1, description="tensors in one safetensors file; SDXL in one has 2,500"
    )
    hub_endpoint: str = Field(
        default="https://huggingface.co",
        pattern=r"^https?://[^\s?#]+[^\s?#/]$",
        description="server that `hub` sources are fetched from",
    )
    hub_cache: Path | None = Field(
        default=None,
        description="folder of a hub cache that is there already: what it holds is not fetched, "
        "loads without the hub, and stays as it is; none: what HF_HUB_CACHE names, or `hub` in "
        "HF_HOME",
    )
    hub_token: SecretStr | None = Field(
        default=None, description="for private repositories; no other token is ever sent"
    )
    hub_timeout_s: Seconds = Field(
        default=10.0, gt=0, description="seconds that the hub may take to describe a file"
    )
