"""One settings model per component. Every field has its unit, range and reason."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

__all__ = [
    "DatabaseConfig",
    "EngineConfig",
    "JobsConfig",
    "LimitsConfig",
    "LoggingConfig",
    "Port",
    "S3Config",
    "SafetyConfig",
    "Seconds",
    "Section",
    "StorageConfig",
]

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """Base of all settings models: immutable, unknown keys refused."""

    # A refused value stays out of the message: it may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class EngineConfig(Section):
    """One engine per Generator replica."""

    painter: Literal["weave", "fake"] = Field(
        default="weave",
        description="fake: plain pictures without weights or torch, for tests of all the rest",
    )
    fake_step_s: Seconds = Field(default=0.0, description="seconds of one step of the fake painter")
    fake_load_s: Seconds = Field(default=0.0, description="seconds until the fake painter is there")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    max_live: int = Field(
        default=32, ge=1, description="requests (pictures) between admission and result"
    )
    max_rows: int = Field(
        default=32,
        ge=1,
        description="rows of one denoiser forward, and largest row count that is measured; a "
        "guided request takes two",
    )
    vae_rows: int = Field(
        default=4, ge=1, description="pictures of one VAE forward, which takes much memory for each"
    )
    row_growth: float = Field(
        default=1.8,
        gt=1,
        description="factor of forward time that doubling its rows may cost; the row cap is the "
        "last doubling within it. At 2 sharing gains nothing; `benchmarks/row_growth.py` compares",
    )
    turn_ticks: int = Field(
        default=8, ge=1, description="forwards until another group of requests gets its turn"
    )
    turn_groups: int = Field(
        default=2, ge=1, description="groups that take turns, oldest first; 1 serves by age alone"
    )
    channels_last: bool = Field(
        default=True,
        description="keep the weights of UNets and VAEs channels-last; on a CPU denoising took 4 "
        "to 15 % less time and decoding four pictures 45 %; not measured on a GPU",
    )
    compile: Literal["off", "default", "reduce-overhead"] = Field(
        default="off",
        description="torch.compile mode of the denoiser, the last one with CUDA graphs; off: not "
        "measured on a GPU yet, and each row count, size, LoRA set and token merging compiles "
        "anew; with it `self_attention` is refused",
    )
    row_buckets: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 32),
        description="row counts that a compiled denoiser is padded to, ascending",
    )
    text_cache: int = Field(
        default=64, ge=0, description="text embeddings kept; encoding stalls everybody's next step"
    )
    encode_cache: int = Field(
        default=32,
        ge=0,
        description="encoded input pictures kept, of half a byte per pixel; the samples of a job "
        "and jobs sent again encode their picture once, a tenth of the demo model's work",
    )
    # Of all add-ons of a kind; the latest used stay, those of jobs at work whatever they take.
    lora_bytes: int = Field(
        default=2 * 1024**3, ge=0, description="bytes of LoRAs kept on the device, per model"
    )
    lora_host_bytes: int = Field(
        default=2 * 1024**3,
        ge=0,
        description="bytes of LoRAs kept in CPU memory, per model, beyond those on the device",
    )
    lora_batch_bytes: int = Field(
        default=1024**3,
        ge=1,
        description="bytes of the LoRAs of one forward side by side; one with more runs in parts",
    )
    vae_bytes: int = Field(
        default=1024**3, ge=0, description="bytes of VAEs of requests kept per model"
    )
    ip_adapter_bytes: int = Field(
        default=4 * 1024**3, ge=0, description="bytes of IP adapters with image encoders per model"
    )
    controlnet_bytes: int = Field(
        default=8 * 1024**3, ge=0, description="bytes of ControlNets of requests kept per model"
    )
    tomesd_ratio: float = Field(
        default=0.5, ge=0, le=0.75, description="share of the tokens that `tomesd` merges"
    )
    translator: Path | None = Field(
        default=None,
        description="folder of a transformers model, many languages to English, safetensors; each "
        "process that paints loads it, on the CPU; one of the Marian family needs the extra "
        "`dreamserve[translation]`; none: `multi_lingual` is refused",
    )
    expander: Path | None = Field(
        default=None,
        description="folder of a transformers causal language model that goes on with prompts of "
        "`enhance_prompt`, safetensors; each process that paints loads it, on the CPU; none: off",
    )
    expander_tokens: int = Field(
        default=24, ge=1, le=256, description="tokens that the expander may append"
    )
    highres_strength: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of the steps that `highres_fix` runs again at the asked size",
    )
    self_attention_scale: float = Field(
        default=3.0, ge=0, le=20, description="strength of `self_attention`; 0 changes nothing"
    )
    panorama_overlap: float = Field(
        default=0.75,
        ge=0,
        lt=1,
        description="share of a window of a `panorama` that the next one covers too",
    )
    panorama_windows: int = Field(
        default=4, ge=1, description="windows of a `panorama` that one call of the denoiser takes"
    )
    measure_rows: bool = Field(
        default=True,
        description="measure row caps: of the sizes expected at start-up, of others when idle",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="folder that measured row caps are kept in; none: `data_dir`/cache",
    )
    crop_padding_px: int = Field(
        default=32, ge=0, description="pixels of context kept around the mask when only a crop runs"
    )
    max_zoom: float = Field(
        default=8.0,
        ge=1,
        le=32,
        description="factor by which `only_masked` may enlarge what is around a small mask",
    )
    outpaint_window: float = Field(
        default=2.0,
        ge=1,
        description="native sizes that a side of what is painted in one piece may have when a "
        "picture grows; more is painted window by window",
    )
    seam_px: int = Field(
        default=4,
        ge=0,
        le=64,
        description="pixels inside the mask's edge that blend old and new; fewer where it is thin",
    )
    match_tone: bool = Field(
        default=True,
        description="shift what was painted into a mask by how far the model's kept pixels are "
        "from the picture's beside it; an autoencoder's tint shows as a box otherwise",
    )
    stall_timeout_s: Seconds = Field(
        default=120.0, description="seconds without a tick, with work at hand, that fail the health"
    )


class SafetyConfig(Section):
    """The NSFW check."""

    checkpoint: Path | None = Field(
        default=None,
        description="folder with safety_checker/ and feature_extractor/; none: asking for the "
        "check fails the job, since nothing unchecked may leave",
    )
    device: str = Field(default="cpu", description="cpu, cuda or cuda:N")


class S3Config(Section):
    """An S3 bucket, Amazon's or any other with the same protocol."""

    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="bucket name")
    prefix: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*)?$",
        description="folder of all files in the bucket, without slashes at its ends",
    )
    region: str = Field(default="us-east-1", description="region that requests are signed for")
    endpoint_url: str | None = Field(
        default=None, pattern=r"^https?://[^\s?#]+$", description="none: Amazon's for the region"
    )
    link_endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="endpoint in presigned links, where clients reach the store by another address",
    )
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+[^\s?#/]$",
        description="base of the links to results that stay, such as a CDN's; none: presigned ones",
    )
    access_key_id: SecretStr | None = Field(
        default=None, description="none: boto3's own search (environment, profile, instance role)"
    )
    secret_access_key: SecretStr | None = Field(default=None, description="goes with the id")
    path_style: bool = Field(
        default=True, description="bucket in the path; false: in the host name, as Amazon prefers"
    )
    link_ttl_s: Seconds = Field(
        default=604_800.0,
        ge=1,
        le=604_800,
        description="seconds that presigned links to results that stay live; SigV4 allows 7 days, "
        "and they die sooner with the temporary credentials of a role",
    )
    timeout_s: Seconds = Field(default=20.0, gt=0, description="seconds to connect, and per read")
    max_attempts: int = Field(
        default=4, ge=1, le=20, description="tries of one call, with growing random pauses"
    )

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self


class StorageConfig(Section):
    """Where result files go. `disk` keeps them under `data_dir`/files."""

    backend: Literal["disk", "s3"] = Field(
        default="disk", description="disk: served under /files/; s3: the bucket of `s3`"
    )
    s3: S3Config | None = Field(default=None, description="the bucket; needed when backend is s3")
    temp_ttl_s: Seconds = Field(
        default=86_400.0, description="seconds a `temp` link lives; the API promises 24 h"
    )
    result_ttl_s: Seconds = Field(
        default=0.0, description="seconds a result that is not `temp` is kept; 0: for ever"
    )
    input_ttl_s: Seconds = Field(
        default=86_400.0, description="seconds an inline input picture is kept for retries"
    )
    upload_retry_s: Seconds = Field(
        default=10.0, description="seconds an upload is retried before the job waits its turn again"
    )

    @model_validator(mode="after")
    def _bucket_is_named(self) -> Self:
        if self.backend == "s3" and self.s3 is None:
            raise ValueError("storage.backend is s3, but storage.s3 names no bucket")
        return self


class DatabaseConfig(Section):
    """The job database, SQLite on one machine or PostgreSQL on a cluster."""

    url: SecretStr | None = Field(
        default=None,
        description="sqlite:///PATH or postgresql://...; none: SQLite under `data_dir`",
    )
    busy_timeout_s: Seconds = Field(
        default=15.0, description="seconds to wait for SQLite's write lock or a pooled connection"
    )
    pool_size: int = Field(default=8, ge=1, le=100, description="connections per process")


class JobsConfig(Section):
    """Acceptance, hold, leases and retries."""

    hold_s: Seconds = Field(
        default=20.0,
        le=300,
        description="seconds a call waits for its result before `processing`; 0: never waits",
    )
    max_open: int = Field(
        default=1000, ge=1, description="jobs queued or processing before new ones are refused"
    )
    idempotency_ttl_s: Seconds = Field(
        default=86_400.0,
        description="seconds in which an `Idempotency-Key` names the first job that came with it",
    )
    max_driven: int = Field(
        default=64, ge=1, description="jobs that one driver process runs at a time"
    )
    lease_s: Seconds = Field(
        default=15.0, ge=1, description="seconds until a silent driver loses its job"
    )
    max_attempts: int = Field(
        default=10,
        ge=1,
        description="runs of one job that may be the job's own fault; losing a replica seldom "
        "is, but a job that ends every replica must end too",
    )
    give_up_s: Seconds = Field(
        default=86_400.0, description="seconds a job outlives outages of the parts it needs"
    )
    first_eta_s: Seconds = Field(
        default=10.0, description="seconds told as `eta` before a job of the model was measured"
    )
    retry_delay_s: Seconds = Field(
        default=1.0, description="seconds before the second retry, doubled each time, with jitter"
    )
    outage_delay_s: Seconds = Field(
        default=5.0, description="seconds before a job that met an outage is run again"
    )
    max_retry_delay_s: Seconds = Field(default=30.0, description="seconds; cap of the doubling")
    timeout_s: Seconds = Field(
        default=600.0, description="seconds one attempt may take, the wait for a replica included"
    )
    poll_s: Seconds = Field(
        default=1.0, ge=0.05, description="seconds between looks for jobs that are due"
    )
    sweep_s: Seconds = Field(
        default=60.0, ge=0.05, description="seconds between removals of what has expired"
    )
    retention_s: Seconds = Field(
        default=30 * 86_400.0, description="seconds a finished job row stays; 0: for ever"
    )


class LimitsConfig(Section):
    """What one API key may ask for; where `auth.mode` is open, nobody is told apart."""

    requests_per_minute: int = Field(
        default=0,
        ge=0,
        description="generation calls of one key within 60 seconds at one ingress replica; 0: any",
    )
    max_open_per_key: int = Field(
        default=100, ge=1, description="jobs of one key queued or processing at a time"
    )


class LoggingConfig(Section):
    """Log lines of every process of the service."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="least severe line that is written"
    )
    format: Literal["json", "console"] = Field(default="json", description="json for collectors")
