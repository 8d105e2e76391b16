"""One settings model per component. Every field has its unit, range and reason."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "EngineConfig",
    "JobsConfig",
    "LimitsConfig",
    "Port",
    "Seconds",
    "Section",
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
        description="Chooses the painter. weave: diffusers; fake: plain pictures without weights "
        "or torch, to test everything else.",
    )
    fake_step_s: Seconds = Field(
        default=0.0, description="Sets the seconds that one step of the fake painter takes."
    )
    fake_load_s: Seconds = Field(
        default=0.0, description="Sets the seconds that the fake painter takes to load."
    )
    device: str = Field(
        default="auto", description="Chooses the device: auto, cpu, cuda or cuda:N."
    )
    max_live: int = Field(
        default=32,
        ge=1,
        description="Limits the requests (pictures) that are between admission and result.",
    )
    max_guests: int = Field(
        default=16,
        ge=0,
        description="Limits the requests beside `max_live`, for API keys that have less than their "
        "part of these.",
    )
    max_rows: int = Field(
        default=32,
        ge=1,
        description="Limits the rows of one denoiser forward, and the row counts that are "
        "measured; a guided request takes two rows.",
    )
    vae_rows: int = Field(
        default=4,
        ge=1,
        description="Limits the pictures of one VAE forward, which takes much memory for each.",
    )
    row_growth: float = Field(
        default=1.8,
        gt=1,
        description="Limits the factor by which doubling the rows may lengthen a forward; the "
        "row cap is the last doubling within it. At 2 sharing gains nothing; "
        "`benchmarks/row_growth.py` compares.",
    )
    turn_ticks: int = Field(
        default=8,
        ge=1,
        description="Sets the number of forwards after which another group of requests gets its "
        "turn.",
    )
    turn_groups: int = Field(
        default=2,
        ge=1,
        description="Sets the number of groups that take turns, oldest first; 1 serves by age "
        "alone.",
    )
    channels_last: bool = Field(
        default=True,
        description="Keeps the weights of UNets and VAEs channels-last. On a CPU denoising took "
        "4 to 15 % less time and decoding four pictures 45 % less; it has not been measured on a "
        "GPU.",
    )
    compile: Literal["off", "default", "reduce-overhead"] = Field(
        default="off",
        description="Chooses the torch.compile mode of the denoiser, the last one with CUDA "
        "graphs. It is off because it has not been measured on a GPU yet. Each size compiles for "
        "each of `engine.row_buckets`, with and without ControlNets and LoRAs, beside the service: "
        "until then, and with LoRAs of kernels, IP adapters, `tomesd` and `self_attention`, "
        "forwards run as they are.",
    )
    row_buckets: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 32),
        description="Lists the row counts, ascending, to which the rows of a compiled denoiser "
        "are padded.",
    )
    compiled_shapes: int = Field(
        default=64,
        ge=0,
        description="Limits the shapes of a denoiser that are compiled: sizes, times row buckets, "
        "with and without ControlNets, times ranks of LoRAs. Those met later run as they are.",
    )
    text_cache: int = Field(
        default=64,
        ge=0,
        description="Limits the text embeddings that are kept; encoding a text delays "
        "everybody's next step.",
    )
    encode_cache: int = Field(
        default=32,
        ge=0,
        description="Limits the encoded input pictures that are kept, each of half a byte per "
        "pixel. The samples of a job and jobs sent again then encode their picture once, which "
        "is a tenth of the demo model's work.",
    )
    # Of all add-ons of a kind; the latest used stay, those of jobs at work whatever they take.
    lora_bytes: int = Field(
        default=2 * 1024**3,
        ge=0,
        description="Limits the bytes of LoRAs that are kept on the device, per model.",
    )
    lora_host_bytes: int = Field(
        default=2 * 1024**3,
        ge=0,
        description="Limits the bytes of LoRAs that are kept in CPU memory beyond those on the "
        "device, per model.",
    )
    lora_batch_bytes: int = Field(
        default=1024**3,
        ge=1,
        description="Limits the bytes of the LoRAs of one forward, with the weights that have them "
        "in; a forward with more runs in parts, and as it is. Compiled ones of XL need more room.",
    )
    lora_reads: int = Field(
        default=4, ge=1, le=64, description="LoRAs of one model that are read from files at once"
    )
    fetch_threads: int = Field(
        default=16,
        ge=1,
        le=256,
        description="jobs of one model whose add-ons are looked up or downloaded at once",
    )
    max_prefetches: int = Field(
        default=16,
        ge=0,
        description="accepted jobs whose add-ons are loaded before their turn, per model; those of "
        "more are loaded when it comes; 0: none",
    )
    vae_bytes: int = Field(
        default=1024**3,
        ge=0,
        description="Limits the bytes of VAEs named by requests that are kept, per model.",
    )
    ip_adapter_bytes: int = Field(
        default=4 * 1024**3,
        ge=0,
        description="Limits the bytes of IP adapters with their image encoders that are kept, "
        "per model.",
    )
    controlnet_bytes: int = Field(
        default=8 * 1024**3,
        ge=0,
        description="Limits the bytes of ControlNets named by requests that are kept, per model.",
    )
    controlnet_host_bytes: int = Field(
        default=4 * 1024**3,
        ge=0,
        description="bytes of ControlNets kept in CPU memory, per model, beyond the device's",
    )
    upscaler_bytes: int = Field(
        default=1024**3, ge=0, description="bytes of upscalers of `upscale` kept per model"
    )
    upscaler_tile_px: int = Field(
        default=192,
        ge=16,
        le=4096,
        multiple_of=8,
        description="side of the tiles that an upscaler enlarges one after another, pixels of the "
        "picture before; the memory that it takes beside its weights grows with the square",
    )
    upscaler_overlap_px: int = Field(
        default=32,
        ge=8,
        le=256,
        multiple_of=8,
        description="pixels that a tile sees of its neighbours on each side; too few show as seams",
    )
    tomesd_ratio: float = Field(
        default=0.5, ge=0, le=0.75, description="Sets the share of the tokens that `tomesd` merges."
    )
    translator: Path | None = Field(
        default=None,
        description="Names the folder of a transformers model in safetensors that translates "
        "many languages to English. Each process that paints loads it, on the CPU; one of the "
        "Marian family needs the extra `dreamserve[translation]`. none: `multi_lingual` is "
        "refused.",
    )
    expander: Path | None = Field(
        default=None,
        description="Names the folder of a transformers causal language model in safetensors "
        "that continues prompts of `enhance_prompt`. Each process that paints loads it, on the "
        "CPU; none: prompts are not continued.",
    )
    expander_tokens: int = Field(
        default=24, ge=1, le=256, description="Limits the tokens that the expander may append."
    )
    highres_strength: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Sets the share of the steps that `highres_fix` runs again at the asked size.",
    )
    self_attention_scale: float = Field(
        default=3.0,
        ge=0,
        le=20,
        description="Sets the strength of `self_attention`; 0 changes nothing.",
    )
    panorama_overlap: float = Field(
        default=0.75,
        ge=0,
        lt=1,
        description="Sets the share of a window of a `panorama` that the next window covers too.",
    )
    panorama_windows: int = Field(
        default=4,
        ge=1,
        description="Limits the windows of a `panorama` that one call of the denoiser takes.",
    )
    measure_rows: bool = Field(
        default=True,
        description="Measures row caps: those of the expected sizes at start-up, those of others "
        "when idle.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Names the folder in which measured row caps are kept; none: `data_dir`/cache.",
    )
    crop_padding_px: int = Field(
        default=32,
        ge=0,
        description="Sets the pixels of context around the mask that are kept when only a crop "
        "is painted.",
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
        description="Sets the pixels inside the mask's edge over which old and new are blended; "
        "fewer are used where the mask is thin.",
    )
    match_tone: bool = Field(
        default=True,
        description="Shifts what was painted into a mask by the difference between the model's "
        "kept pixels and the picture's beside it. Otherwise an autoencoder's tint shows as a "
        "box.",
    )
    preview_every_steps: int = Field(
        default=2,
        ge=0,
        description="steps between two previews of a job at least; only jobs that somebody "
        "watches have any; 0: none has",
    )
    preview_px: int = Field(
        default=256, ge=32, le=1024, description="pixels of the longer side of a preview"
    )
    stall_timeout_s: Seconds = Field(
        default=120.0,
        description="Sets the seconds without a tick, while there is work, after which the "
        "health check fails.",
    )


class JobsConfig(Section):
    """Acceptance, hold, leases and retries."""

    hold_s: Seconds = Field(
        default=20.0,
        le=300,
        description="Limits the seconds that a call waits for its result before it answers "
        "`processing`; 0: it never waits.",
    )
    max_open: int = Field(
        default=1000,
        ge=1,
        description="Limits the jobs that are queued or processing; beyond it new ones are "
        "refused.",
    )
    max_open_guests: int = Field(
        default=100,
        ge=0,
        description="Limits the jobs beside `max_open`, of API keys without any other open job.",
    )
    idempotency_ttl_s: Seconds = Field(
        default=86_400.0,
        description="Sets the seconds during which an `Idempotency-Key` stands for the first job "
        "that came with it.",
    )
    max_driven: int = Field(
        default=64,
        ge=1,
        description="Limits the jobs that one driver process runs at the same time.",
    )
    max_driven_guests: int = Field(
        default=64,
        ge=0,
        description="Limits the jobs beside `max_driven`, for API keys that have less than their "
        "part of these.",
    )
    lease_s: Seconds = Field(
        default=15.0,
        ge=1,
        description="Sets the seconds after which a silent driver loses its job.",
    )
    max_attempts: int = Field(
        default=10,
        ge=1,
        description="Limits the runs of one job that may be the job's own fault. Losing a "
        "replica seldom is, but a job that ends every replica must end too.",
    )
    give_up_s: Seconds = Field(
        default=86_400.0,
        description="Limits the seconds that a job outlives outages of the parts that it needs.",
    )
    first_eta_s: Seconds = Field(
        default=10.0,
        description="Sets the `eta`, in seconds, that is told before a job of the model has been "
        "measured.",
    )
    retry_delay_s: Seconds = Field(
        default=1.0,
        description="Sets the seconds before the second retry; they are doubled each time, with "
        "jitter.",
    )
    outage_delay_s: Seconds = Field(
        default=5.0,
        description="Sets the seconds after which a job that met an outage is run again.",
    )
    max_retry_delay_s: Seconds = Field(
        default=30.0, description="Limits the seconds that the doubling may reach."
    )
    timeout_s: Seconds = Field(
        default=600.0,
        description="Limits the seconds that one attempt may take, the wait for a replica "
        "included.",
    )
    drain_s: Seconds = Field(
        default=30.0,
        description="Limits the seconds that a process which is replaced still runs its jobs, "
        "before another one begins them anew; keep it and `hold_s` together below "
        "`graceful_shutdown_timeout_s` of the ingress.",
    )
    poll_s: Seconds = Field(
        default=1.0,
        ge=0.05,
        description="seconds between looks for due jobs; at rest up to a third of `lease_s`",
    )
    sweep_s: Seconds = Field(
        default=60.0, ge=0.05, description="Sets the seconds between removals of what has expired."
    )
    retention_s: Seconds = Field(
        default=30 * 86_400.0,
        description="Sets the seconds that the row of a finished job is kept; 0: for ever.",
    )


class LimitsConfig(Section):
    """What an API key may ask for that has no limits of its own; with `auth.mode: open` any may."""

    requests_per_minute: int = Field(
        default=0,
        ge=0,
        description="Limits how many generation calls of one key are accepted within 60 seconds, "
        "over all ingress replicas, and how many calls of helpers at one of them; 0: no limit.",
    )
    max_open_per_key: int = Field(
        default=100,
        ge=1,
        description="Limits the jobs of one key that are queued or processing at the same time.",
    )
