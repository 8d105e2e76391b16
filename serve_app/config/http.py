"""The wire and who may use it."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from serve_app.config.components import Seconds, Section

__all__ = ["AuthConfig", "AuthMode", "HttpConfig"]


class HttpConfig(Section):
    """The wire: what the ingress accepts and how it answers."""

    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="Sets the scheme, host and path prefix of all links; none: they are taken "
        "from each request.",
    )
    max_header_bytes: int = Field(
        default=32 * 1024,
        ge=1024,
        description="Limits the bytes of the path, the query and all headers of a call together.",
    )
    max_body_bytes: int = Field(
        default=32 * 1024**2,
        ge=1024,
        description="Limits the bytes of a body, JSON or multipart form.",
    )
    max_form_bytes: int = Field(
        default=16 * 1024**2,
        ge=1024,
        description="Limits the bytes of a urlencoded form, in which pictures are base64 and "
        "percent-encoded.",
    )
    max_fields_bytes: int = Field(
        default=1024**2,
        ge=1024,
        description="Limits the bytes that a body may have besides its pictures.",
    )
    max_form_fields: int = Field(
        default=200, ge=1, le=10_000, description="Limits the number of fields and files of a form."
    )
    max_json_depth: int = Field(
        default=16, ge=1, le=200, description="Limits how deeply JSON may be nested, in levels."
    )
    max_arriving_bytes: int = Field(
        default=512 * 1024**2,
        ge=1024,
        description="Limits the bytes of all bodies that are still arriving at one ingress "
        "replica. Beyond it, the largest is refused and asked to come back. As many bytes again "
        "may wait to be parsed.",
    )
    body_timeout_s: Seconds = Field(
        default=60.0,
        gt=0,
        description="Limits the seconds that a body may take to arrive; after them the "
        "connection is closed.",
    )
    max_reply_bytes: int = Field(
        default=256 * 1024**2,
        ge=1024**2,
        description="Limits the bytes of results that the replies to OpenAI's clients hold at one "
        "ingress replica while they write them as base64, each counted by the size that its "
        "pixels may have as PNG. A reply that finds no room waits.",
    )
    openai_wait_s: Seconds = Field(
        default=600.0,
        gt=0,
        description="seconds a call of `/v1/images` waits for its pictures; then its job is "
        "cancelled, since OpenAI's clients do not fetch. 600 is how long they wait themselves",
    )
    max_output_pixels: int = Field(
        default=9 * 1024**2,
        ge=4096,
        description="Limits the pixels (width x height) of one result; an `upscale` beyond it is "
        "refused.",
    )
    upscaler: str | None = Field(
        default=None,
        max_length=96,
        description="id of the upscaler of the catalogue that `upscale` uses with models that it "
        "fits and that name none themselves; none: Lanczos resampling",
    )
    max_panorama_width_px: int = Field(
        default=2048,
        ge=1024,
        le=8192,
        description="Limits the width of a panorama, in pixels; other pictures are at most 1024 "
        "wide.",
    )
    max_mask_expand_px: int = Field(
        default=256, ge=0, le=1024, description="pixels that `mask_expand` may grow or shrink by"
    )
    max_mask_blur_px: int = Field(
        default=64, ge=0, le=240, description="pixels that `mask_blur` may fade in over"
    )
    max_padding_px: int = Field(
        default=512, ge=0, le=2048, description="pixels that `padding` may keep around a mask"
    )
    max_outpaint_side_px: int = Field(
        default=2048,
        ge=64,
        le=8192,
        description="pixels of a side that a picture may grow to, and by",
    )
    max_outpaint_overlap_px: int = Field(
        default=128, ge=0, le=1024, description="pixels that `overlap_width` may have"
    )
    outpaint_model: str | None = Field(
        default=None,
        description="model of the outpaint call, whose clients may name none; none: the first of "
        "the catalogue that inpaints",
    )
    max_eta_s: int = Field(
        default=5,
        ge=1,
        le=3600,
        description="Limits the seconds that an `eta` tells clients to wait until they fetch "
        "again, however long the job takes: estimates are sometimes wrong, and clients sleep as "
        "they are told.",
    )
    styles: Path | None = Field(
        default=None,
        description="Names a YAML file with the styles of `enhance_style`, words by name; none: "
        "the table that comes with the service is used.",
    )
    playground: bool = Field(
        default=True,
        description="the pages for browsers at `/` and `/status`; they use the public API only",
    )
    cors_origins: tuple[str, ...] = Field(
        default=("*",),
        description="Lists the origins that browsers may call from; the hosted API allows all.",
    )
    real_codes_v3_v4: bool = Field(
        default=False,
        description="Answers errors of V3, V4 and V5 with their HTTP codes; off: with 200, as "
        "old clients expect.",
    )
    real_codes_v6_v7: bool = Field(
        default=True,
        description="Answers errors of V6 and V7 with their HTTP codes; off: with 200.",
    )
    running_fetch_output: Literal["", "list"] = Field(
        default="",
        description='Chooses `output` in the fetch of a job that is not done: "" as documented, '
        "or an empty list.",
    )


class AuthMode(StrEnum):
    """Who may call."""

    OPEN = "open"  # any key, also none; for development
    KEYS = "keys"  # only keys of the key table


class AuthConfig(Section):
    """Who may call."""

    mode: AuthMode = Field(
        default=AuthMode.KEYS,
        description="Says who may call: open lets in any caller and is for development only; "
        "keys asks for a key of the key table.",
    )
    force_open: bool = Field(
        default=False, description="Allows `open` on an address that is not loopback."
    )
    admin_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Sets the key with which operators may change the catalogue by "
        "/admin/models; none: these paths do not exist.",
    )
    admin_failures_per_minute: int = Field(
        default=10,
        ge=0,
        description="Limits the wrong admin keys of one address within 60 seconds at one ingress "
        "replica. Beyond it, nobody gets in from that address; behind a proxy all callers share "
        "its address. 0: no limit.",
    )
