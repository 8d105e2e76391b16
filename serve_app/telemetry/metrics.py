"""Every metric of the service: name, meaning, unit and labels in one list (`docs/metrics.md`).

Names follow Prometheus: a unit as suffix, `_total` on what only grows. Ray exports them from each
node beside its own and Serve's (queue lengths, replica counts, latencies of deployments).
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "DATABASE",
    "ENGINE",
    "ERRORS",
    "GONE",
    "JOBS",
    "PARTS",
    "PICTURES",
    "POOL",
    "RELOAD",
    "RELOAD_FAILURES",
    "STREAMS",
    "USAGE",
    "WEBHOOKS",
    "DatabaseWait",
    "Kind",
    "Metric",
    "OpenJobs",
    "PartStates",
    "markdown",
]


class Kind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"  # only grows
    GAUGE = "gauge"  # a level


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `source` is the attribute it is read from, where that has another name."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...]
    source: str = ""


_ENGINE_LABELS = ("model_id",)

ENGINE = (
    Metric("dreamserve_engine_waiting", Kind.GAUGE, "requests not yet started", _ENGINE_LABELS),
    Metric("dreamserve_engine_parked", Kind.GAUGE, "requests between two steps", _ENGINE_LABELS),
    Metric(
        "dreamserve_engine_rows_per_forward",
        Kind.GAUGE,
        "mean rows of the forwards of the last 10 s",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_engine_steps_per_second",
        Kind.GAUGE,
        "denoising steps of all requests per second, over the last 10 s",
        _ENGINE_LABELS,
        "steps_per_s",
    ),
    Metric(
        "dreamserve_engine_tick_seconds",
        Kind.GAUGE,
        "mean duration of the ticks of the last 10 s",
        _ENGINE_LABELS,
        "tick_s",
    ),
    Metric(
        "dreamserve_engine_pictures_per_second",
        Kind.GAUGE,
        "pictures made per second, over the last minute",
        _ENGINE_LABELS,
        "pictures_per_s",
    ),
    Metric("dreamserve_engine_forwards_total", Kind.COUNTER, "denoiser forwards", _ENGINE_LABELS),
    Metric("dreamserve_engine_rows_total", Kind.COUNTER, "rows of all forwards", _ENGINE_LABELS),
    Metric("dreamserve_engine_succeeded_total", Kind.COUNTER, "pictures made", _ENGINE_LABELS),
    Metric("dreamserve_engine_failed_total", Kind.COUNTER, "requests that failed", _ENGINE_LABELS),
    Metric(
        "dreamserve_engine_cancelled_total",
        Kind.COUNTER,
        "requests whose client left or cancelled",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_engine_out_of_memory_total",
        Kind.COUNTER,
        "forwards that ran out of device memory and were tried again with fewer rows",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_engine_switches_total",
        Kind.COUNTER,
        "changes of IP adapter, token merging or self-attention guidance",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_engine_compiled_shapes",
        Kind.GAUGE,
        "shapes of the denoiser that are compiled; 0 unless `engine.compile` is on",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_engine_compiled_forwards_total",
        Kind.COUNTER,
        "denoiser forwards that ran compiled",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_engine_stage_seconds_total",
        Kind.COUNTER,
        "time of the engine thread by stage: start, forward by module, resume, switch",
        (*_ENGINE_LABELS, "stage"),
        "stage_s",
    ),
)

POOL = (
    Metric("dreamserve_pool_held", Kind.GAUGE, "models in memory", ()),
    Metric(
        "dreamserve_pool_used_bytes",
        Kind.GAUGE,
        "memory of models in bytes, those that come or leave included",
        (),
    ),
    Metric("dreamserve_pool_waiting", Kind.GAUGE, "calls that wait for their model", ()),
    Metric("dreamserve_pool_hits_total", Kind.COUNTER, "calls whose model was in memory", ()),
    Metric("dreamserve_pool_waits_total", Kind.COUNTER, "calls that waited for their model", ()),
    Metric("dreamserve_pool_loads_total", Kind.COUNTER, "models loaded", ()),
    Metric("dreamserve_pool_load_failures_total", Kind.COUNTER, "loads that failed", ()),
    Metric("dreamserve_pool_load_seconds_total", Kind.COUNTER, "time of the loads", ()),
    Metric(
        "dreamserve_pool_evictions_total",
        Kind.COUNTER,
        "models that left for others or because nobody asked for them",
        (),
    ),
)

HOST = (
    Metric("dreamserve_host_held", Kind.GAUGE, "models copied in CPU memory", ()),
    Metric("dreamserve_host_used_bytes", Kind.GAUGE, "CPU memory of these copies in bytes", ()),
    Metric("dreamserve_host_hits_total", Kind.COUNTER, "loads that read no files", ()),
)

RELOAD_FAILURES = Metric(
    "dreamserve_model_reload_failures_total",
    Kind.COUNTER,
    "weights that a replica refused; the ones before went on serving",
    _ENGINE_LABELS,
)

RELOAD = (
    Metric(
        "dreamserve_model_generation",
        Kind.GAUGE,
        "version of the weights that a replica serves; 0: those of its start; -1: none",
        _ENGINE_LABELS,
        "weights_version",
    ),
    Metric(
        "dreamserve_model_load_seconds",
        Kind.GAUGE,
        "time that the weights which serve took to load",
        _ENGINE_LABELS,
        "load_s",
    ),
    RELOAD_FAILURES,
)

PICTURES = (
    Metric(
        "dreamserve_picture_workers_lost_total",
        Kind.COUNTER,
        "processes that read pictures and were replaced, by cause: time, memory (limits of one "
        "file), cancelled (the caller left), hung, crash (all else)",
        ("cause",),
    ),
)

JOBS = (
    Metric("dreamserve_jobs_open", Kind.GAUGE, "jobs queued or processing", ("model_id",)),
    Metric(
        "dreamserve_jobs_oldest_seconds",
        Kind.GAUGE,
        "time since the oldest job that is still open was accepted; 0: none is open",
        (),
        "oldest_s",
    ),
)

ERRORS = (
    Metric(
        "dreamserve_errors_total",
        Kind.COUNTER,
        "errors that clients were told: code of docs/errors.md; call: path, or job for what a job "
        "ended with; key: its id, other for those beyond `logging.error_keys`, none",
        ("code", "call", "key"),
        "errors",
    ),
)

STREAMS = (
    Metric(
        "dreamserve_event_streams",
        Kind.GAUGE,
        "streams of events that are open at an ingress replica",
        (),
        "num_streams",
    ),
    Metric(
        "dreamserve_event_refused_total",
        Kind.COUNTER,
        "streams refused because there were too many, of all or of one key",
        (),
    ),
)

WEBHOOKS = (
    Metric(
        "dreamserve_webhooks_pending",
        Kind.GAUGE,
        "messages to be sent, those that wait for their next attempt too",
        (),
    ),
    Metric(
        "dreamserve_webhooks_overdue_seconds",
        Kind.GAUGE,
        "time since the message that has been due longest became due; 0: none is",
        (),
        "overdue_s",
    ),
)


@dataclass(frozen=True, slots=True)
class DatabaseWait:
    """What `DATABASE` is read from."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """What `JOBS` is read from: open jobs by model id, and the age of the oldest in seconds."""

    open: dict[str, int]
    oldest_s: float


PARTS = (
    Metric(
        "dreamserve_dependency_up",
        Kind.GAUGE,
        "whether a part answers that every call needs: database, storage, safety; 1: it does",
        ("part",),
        "up",
    ),
    Metric(
        "dreamserve_model_ready",
        Kind.GAUGE,
        "whether a model that has replicas of its own can answer; 1: it can; -1: it has none now",
        _ENGINE_LABELS,
        "ready",
    ),
)

DATABASE = (
    Metric(
        "dreamserve_database_wait_seconds",
        Kind.GAUGE,
        "longest that a process waited for one of its `database.pool_size` connections within the "
        "last seconds, on SQLite also for its turn to write",
        (),
        "wait_s",
    ),
)

USAGE = (
    Metric(
        "dreamserve_usage_succeeded_total",
        Kind.COUNTER,
        "jobs that succeeded, of all drivers",
        _ENGINE_LABELS,
    ),
    Metric("dreamserve_usage_failed_total", Kind.COUNTER, "jobs that failed", _ENGINE_LABELS),
    Metric(
        "dreamserve_usage_cancelled_total", Kind.COUNTER, "jobs that were cancelled", _ENGINE_LABELS
    ),
    Metric(
        "dreamserve_usage_pictures_total",
        Kind.COUNTER,
        "pictures of jobs that succeeded",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_usage_row_steps_total",
        Kind.COUNTER,
        "rows of the forwards of their steps",
        _ENGINE_LABELS,
    ),
    Metric(
        "dreamserve_usage_device_seconds_total",
        Kind.COUNTER,
        "their share of the time that engines were at work",
        _ENGINE_LABELS,
        "device_s",
    ),
    Metric(
        "dreamserve_usage_stored_bytes_total",
        Kind.COUNTER,
        "bytes of their results",
        _ENGINE_LABELS,
        "stored_bytes",
    ),
)


GONE = -1
"""The state of a model that had replicas of its own, and whose deployment was taken away."""


@dataclass(frozen=True, slots=True)
class PartStates:
    """What `PARTS` is read from: 1 for what answers; parts by name, models by id."""

    up: dict[str, int]
    ready: dict[str, int]


_HEAD = """# Metrics

Exported by Ray on each node (`ray start --metrics-export-port`), beside Ray Serve's own. Written by
`dreamserve metrics`. No label holds a job id, a prompt or a key's secret.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def markdown() -> str:
    """Write `docs/metrics.md`; a test compares."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels) or 'none'} "
        f"| {metric.meaning} |"
        for metric in (
            *ENGINE,
            *RELOAD,
            *POOL,
            *HOST,
            *PICTURES,
            *JOBS,
            *ERRORS,
            *STREAMS,
            *PARTS,
            *DATABASE,
            *USAGE,
            *WEBHOOKS,
        )
    ]
    return _HEAD + "\n".join(rows) + "\n"
