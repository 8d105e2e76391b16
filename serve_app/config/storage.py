"""`StorageConfig`: where result files go, and for how long they stay."""

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from serve_app.config.components import Seconds, Section

__all__ = ["S3Config", "StorageConfig"]


class S3Config(Section):
    """An S3 bucket, Amazon's or any other with the same protocol."""

    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Names the bucket."
    )
    prefix: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*)?$",
        description="Sets the folder of all files in the bucket, without slashes at its ends.",
    )
    region: str = Field(
        default="us-east-1", description="Sets the region that requests are signed for."
    )
    endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="Sets the server; none: Amazon's for the region.",
    )
    link_endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="Sets the endpoint in presigned links, where clients reach the store by "
        "another address.",
    )
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+[^\s?#/]$",
        description="Sets the base of the links to results that stay, such as a CDN's; none: "
        "presigned links.",
    )
    access_key_id: SecretStr | None = Field(
        default=None,
        description="Sets the id of the key; none: boto3's own search (environment, profile, "
        "instance role).",
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Sets the secret that belongs to the id."
    )
    path_style: bool = Field(
        default=True,
        description="Puts the bucket into the path; false: into the host name, as Amazon prefers.",
    )
    link_ttl_s: Seconds = Field(
        default=604_800.0,
        ge=1,
        le=604_800,
        description="Sets the seconds that presigned links to results that stay are valid. SigV4 "
        "allows 7 days, and they expire sooner with the temporary credentials of a role.",
    )
    timeout_s: Seconds = Field(
        default=20.0, gt=0, description="Limits the seconds to connect, and those of each read."
    )
    max_attempts: int = Field(
        default=4,
        ge=1,
        le=20,
        description="Limits the attempts of one call; the pauses between them are random and grow.",
    )

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self


class StorageConfig(Section):
    """Where result files go. `disk` keeps them under `data_dir`/files."""

    backend: Literal["disk", "s3"] = Field(
        default="disk",
        description="Chooses the object store. disk: files are served under /files/; s3: the "
        "bucket of `s3`.",
    )
    s3: S3Config | None = Field(
        default=None, description="Describes the bucket; it is needed when backend is s3."
    )
    temp_ttl_s: Seconds = Field(
        default=86_400.0,
        description="Sets the seconds that a `temp` link is valid; the API promises 24 h.",
    )
    result_ttl_s: Seconds = Field(
        default=0.0,
        description="Sets the seconds that a result which is not `temp` is kept; 0: for ever.",
    )
    input_ttl_s: Seconds = Field(
        default=86_400.0,
        description="Sets the seconds that an inline input picture is kept for retries.",
    )
    upload_retry_s: Seconds = Field(
        default=10.0,
        description="Limits the seconds that an upload is retried before the job waits for its "
        "next attempt.",
    )

    @model_validator(mode="after")
    def _bucket_is_named(self) -> Self:
        if self.backend == "s3" and self.s3 is None:
            raise ValueError("storage.backend is s3, but storage.s3 names no bucket")
        return self
