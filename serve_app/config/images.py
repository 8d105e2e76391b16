"""`ImagesConfig`: what pictures of clients may cost, and where they come from; `HintsConfig`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from serve_app.config.components import Port, Seconds, Section

__all__ = ["HintsConfig", "ImagesConfig"]


class ImagesConfig(Section):
    """Limits on pictures that clients hand in, by URL or inline."""

    max_bytes: int = Field(
        default=20 * 1024**2, ge=1024, description="Limits the bytes of one encoded file."
    )
    max_pixels: int = Field(
        default=32_000_000, ge=4096, description="Limits the pixels (width x height) of one file."
    )
    max_side_px: int = Field(
        default=8192, ge=64, description="Limits the longer side of a picture, in pixels."
    )
    ip_adapter_side_px: int = Field(
        default=1024,
        ge=64,
        description="Sets the pixels to which the longer side of a picture for an IP adapter is "
        "reduced; image encoders look at 224 to 336.",
    )
    max_scans: int = Field(
        default=100,
        ge=1,
        description="Limits the scans of one JPEG. A progressive one has about ten, and each "
        "takes some 8 ms at 32 megapixels, however few bytes it has.",
    )
    max_parts: int = Field(
        default=50_000,
        ge=16,
        description="Limits the chunks or segments of one file, frames of an animation among "
        "them; each takes some microseconds to read.",
    )
    max_prepared: int = Field(
        default=16,
        ge=1,
        description="Limits the jobs whose pictures one Preprocess replica has in memory; as many "
        "again may come from API keys that have less than their part of these.",
    )
    decode_workers: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Sets the number of processes that read files, per Preprocess replica; each "
        "takes 55 MB when idle.",
    )
    decode_niceness: int = Field(
        default=5,
        ge=0,
        le=19,
        description="Sets the niceness of these processes, so that those that answer callers "
        "come first. Each step takes a fifth of their share of the CPU when all cores are busy.",
    )
    decode_timeout_s: Seconds = Field(
        default=5.0,
        gt=0,
        description="Limits the seconds that reading one file may take; after them its worker is "
        "replaced.",
    )
    decode_memory_bytes: int = Field(
        default=768 * 1024**2,
        ge=16 * 1024**2,
        description="Limits the bytes of address space that a worker may use beyond what it "
        "starts with. 32 megapixels take up to 620 MB as a WebP, half of it as a PNG or JPEG.",
    )
    max_redirects: int = Field(
        default=3,
        ge=0,
        le=10,
        description="Limits the redirects of one download; each target is checked anew.",
    )
    download_timeout_s: Seconds = Field(
        default=15.0, description="Limits the seconds of one whole download, redirects included."
    )
    connect_timeout_s: Seconds = Field(
        default=5.0, description="Limits the seconds that a connection may take to be established."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Lists host names that may resolve to private or special addresses, on any "
        "port.",
    )
    allowed_ports: tuple[Port, ...] = Field(
        default=(80, 443), description="Lists the ports on which other hosts may be reached."
    )


class HintsConfig(Section):
    """Models that make what ControlNets are shown, where `auto_hint` asks for it.

    Each Preprocess replica loads one for the first such hint.
    """

    depth: Path | None = Field(
        default=None,
        description="folder of a transformers model for depth estimation with its image processor, "
        "safetensors; none: `auto_hint` is refused for depth",
    )
    normal: Path | None = Field(
        default=None,
        description="folder of a MiDaS model (DPT), as for depth: normals are made of its depths; "
        "may be the same one. none: refused for normal",
    )
    segmentation: Path | None = Field(
        default=None,
        description="folder of a transformers model for semantic segmentation that was trained on "
        "the 150 classes of ADE20K, with its image processor, safetensors; none: refused for "
        "segmentation",
    )
    pose: Path | None = Field(
        default=None,
        description="folder of a ViTPose model for COCO's 17 keypoints, with its image processor, "
        "safetensors; none: refused for openpose and pose",
    )
    people: Path | None = Field(
        default=None,
        description="folder of a transformers model for object detection that knows persons, in "
        "the same form; it goes with `hints.pose`",
    )
    softedge: Path | None = Field(
        default=None,
        description="file of HED (`ControlNetHED.pth`), made safetensors by `dreamserve models "
        "convert`; none: refused for softedge and hed",
    )
    lineart: Path | None = Field(
        default=None,
        description="file of the line drawer (`sk_model.pth`), made safetensors in the same way; "
        "none: refused for lineart",
    )
    mlsd: Path | None = Field(
        default=None,
        description="file of M-LSD (`mlsd_large_512_fp32.pth`), made safetensors in the same way; "
        "none: refused for mlsd",
    )
    max_people: int = Field(
        default=10,
        ge=1,
        le=100,
        description="people of a picture whose poses are drawn, the surest first; each takes one "
        "run of the model",
    )
    device: str = Field(default="cpu", description="that they run on: cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _name_both(self) -> Self:
        if (self.pose is None) is not (self.people is None):
            raise ValueError(
                "set pose and people together: one finds joints, the other finds people"
            )
        return self

    @property
    def paths(self) -> dict[str, Path]:
        """The folders and files that are named, by setting."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: path for name, path in named.items() if isinstance(path, Path)}
