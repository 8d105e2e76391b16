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
        description="scheme, host and path prefix of all links; none: taken from each request",
    )
    max_header_bytes: int = Field(
        default=32 * 1024,
        ge=1024,
        description="bytes of the path, the query and all headers of a call",
    )
    max_body_bytes: int = Field(
        default=32 * 1024**2, ge=1024, description="bytes of a body, JSON or multipart form"
    )
    max_form_bytes: int = Field(
        default=16 * 1024**2,
        ge=1024,
        description="bytes of a urlencoded form; a picture in it is base64 and percent-encoded",
    )
    max_fields_bytes: int = Field(
        default=1024**2, ge=1024, description="bytes of a body besides the pictures in it"
    )
    max_form_fields: int = Field(
        default=200, ge=1, le=10_000, description="fields and files of a form"
    )
    max_json_depth: int = Field(default=16, ge=1, le=200, description="levels of nesting")
    max_arriving_bytes: int = Field(
        default=512 * 1024**2,
        ge=1024,
        description="bytes of all bodies that have not arrived to their ends, at one ingress "
        "replica; of more the largest is asked to come back. As many again may wait to be parsed",
    )
    body_timeout_s: Seconds = Field(
        default=60.0, gt=0, description="seconds for a body to arrive, or its connection is closed"
    )
    max_output_pixels: int = Field(
        default=9 * 1024**2,
        ge=4096,
        description="width x height of one result; an `upscale` beyond it is refused",
    )
    max_panorama_width_px: int = Field(
        default=2048, ge=1024, le=8192, description="pixels; other pictures are at most 1024 wide"
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
        description="seconds that an `eta` tells clients at most to wait until they fetch again, "
        "however long the job takes: estimates err, and clients sleep as they are told",
    )
    styles: Path | None = Field(
        default=None,
        description="YAML file of the styles of `enhance_style`, words by name; none: the table "
        "that comes with the service",
    )
    cors_origins: tuple[str, ...] = Field(
        default=("*",), description="origins browsers may call from; the hosted API allows all"
    )
    real_codes_v3_v4: bool = Field(
        default=False, description="errors with their HTTP codes; off: 200, as old clients expect"
    )
    real_codes_v6_v7: bool = Field(
        default=True, description="errors with their HTTP codes; off: 200"
    )
    running_fetch_output: Literal["", "list"] = Field(
        default="", description='`output` of a running fetch: "" as documented, or an empty list'
    )


class AuthMode(StrEnum):
    """Who may call."""

    OPEN = "open"  # any key, also none; for development
    KEYS = "keys"  # only keys of the key table


class AuthConfig(Section):
    """Who may call."""

    mode: AuthMode = Field(default=AuthMode.KEYS, description="open: any caller, development only")
    force_open: bool = Field(
        default=False, description="allow `open` on an address that is not loopback"
    )
    admin_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="who sends it may change the catalogue by /admin/models; none: nobody may",
    )
    admin_failures_per_minute: int = Field(
        default=10,
        ge=0,
        description="wrong admin keys of one address within 60 seconds at one ingress replica; "
        "then nobody gets in from there; behind a proxy all have its address; 0: any number",
    )
