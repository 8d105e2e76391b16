"""What the metrics of all nodes say together: the rows of `dreamserve top`.

Reads pages in Prometheus' text format as Ray's node agents export them. Pure: no network, no Ray.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["DeploymentLoad", "ModelLoad", "NodeLoad", "Overview", "read"]

_STATUS = (
    "unknown",
    "deploy failed",
    "unhealthy",
    "not started",
    "deleting",
    "deploying",
    "running",
)
_ENGINE = "ray_dreamserve_engine_"
_SERVE = "ray_serve_"
# The lines worth parsing: a tenth of a page, which has thousands.
_READ = (
    "ray_dreamserve_",
    "ray_node_",
    f"{_SERVE}application_status",
    f"{_SERVE}autoscaling_target_replicas",
    f"{_SERVE}deployment_queued_queries",
    f"{_SERVE}deployment_replica_healthy",
    f"{_SERVE}deployment_status",
    f"{_SERVE}replica_processing_queries",
)


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model over all replicas that hold it.

    rows_per_forward: mean of the replicas that did any; tick_s: of the slowest one.
    """

    model_id: str
    replicas: int
    open_jobs: int
    waiting: int
    at_work: int
    rows_per_forward: float
    steps_per_s: float
    pictures_per_s: float
    tick_s: float
    made: int
    failed: int


@dataclass(frozen=True, slots=True)
class DeploymentLoad:
    """One deployment. queued: calls that wait at their callers."""

    name: str
    healthy: int
    wanted: int
    at_work: int
    queued: int


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """One node; shares are 0 to 1, the GPU's None where there is none."""

    address: str
    cpu: float
    memory: float
    disk: float
    gpu: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is shown, sorted by name."""

    status: str
    oldest_job_s: float
    models: tuple[ModelLoad, ...]
    deployments: tuple[DeploymentLoad, ...]
    nodes: tuple[NodeLoad, ...]

    @property
    def pictures_per_s(self) -> float:
        """Of all models."""
        return sum(model.pictures_per_s for model in self.models)

    @property
    def open_jobs(self) -> int:
        """Of all models."""
        return sum(model.open_jobs for model in self.models)


class _Series:
    """The samples of all pages by metric name."""

    def __init__(self, pages: Iterable[str]) -> None:
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for page in pages:
            lines = (line for line in page.splitlines() if line.startswith(_READ))
            for family in text_string_to_metric_families("\n".join(lines) + "\n"):
                for sample in family.samples:
                    self._samples[sample.name].append((sample.labels, sample.value))

    def values(self, name: str, **labels: str) -> Iterator[float]:
        """The values of one metric with these labels."""
        wanted = labels.items()
        return (value for has, value in self._samples.get(name, ()) if wanted <= has.items())

    def sum(self, name: str, **labels: str) -> float:
        """Add up; 0 without a sample."""
        return sum(self.values(name, **labels))

    def max(self, name: str, **labels: str) -> float:
        """The largest; 0 without a sample."""
        return max(self.values(name, **labels), default=0.0)

    def label(self, name: str, label: str) -> list[str]:
        """The values that a label has, sorted."""
        return sorted({has[label] for has, _ in self._samples.get(name, ()) if has.get(label)})


def read(pages: Iterable[str]) -> Overview:
    """Aggregate the pages of all nodes."""
    series = _Series(pages)
    models = {
        *series.label(f"{_ENGINE}waiting", "model_id"),
        *series.label("ray_dreamserve_jobs_open", "model_id"),
    }
    return Overview(
        status=_STATUS[int(series.max(f"{_SERVE}application_status"))],
        oldest_job_s=series.max("ray_dreamserve_jobs_oldest_seconds"),
        models=tuple(_model(series, model_id) for model_id in sorted(models)),
        deployments=tuple(
            _deployment(series, name)
            for name in series.label(f"{_SERVE}deployment_status", "deployment")
        ),
        nodes=tuple(_node(series, ip) for ip in series.label("ray_node_cpu_utilization", "ip")),
    )


def _model(series: _Series, model_id: str) -> ModelLoad:
    def engine(name: str) -> float:
        return series.sum(f"{_ENGINE}{name}", model_id=model_id)

    busy = [rows for rows in series.values(f"{_ENGINE}rows_per_forward", model_id=model_id) if rows]
    return ModelLoad(
        model_id=model_id,
        replicas=sum(1 for _ in series.values(f"{_ENGINE}waiting", model_id=model_id)),
        open_jobs=int(series.sum("ray_dreamserve_jobs_open", model_id=model_id)),
        waiting=int(engine("waiting")),
        at_work=int(engine("parked")),
        rows_per_forward=sum(busy) / len(busy) if busy else 0.0,
        steps_per_s=engine("steps_per_second"),
        pictures_per_s=engine("pictures_per_second"),
        tick_s=series.max(f"{_ENGINE}tick_seconds", model_id=model_id),
        made=int(engine("succeeded_total")),
        failed=int(engine("failed_total")),
    )


def _deployment(series: _Series, name: str) -> DeploymentLoad:
    def serve(metric: str) -> int:
        return int(series.sum(f"{_SERVE}{metric}", deployment=name))

    return DeploymentLoad(
        name=name,
        healthy=serve("deployment_replica_healthy"),
        wanted=int(series.max(f"{_SERVE}autoscaling_target_replicas", deployment=name)),
        at_work=serve("replica_processing_queries"),
        queued=serve("deployment_queued_queries"),
    )


def _node(series: _Series, ip: str) -> NodeLoad:
    gpus = list(series.values("ray_node_gpus_utilization", ip=ip))
    return NodeLoad(
        address=ip,
        cpu=series.max("ray_node_cpu_utilization", ip=ip) / 100,
        memory=series.max("ray_node_mem_used", ip=ip)
        / (series.max("ray_node_mem_total", ip=ip) or 1.0),
        disk=series.max("ray_node_disk_utilization_percentage", ip=ip) / 100,
        gpu=sum(gpus) / len(gpus) / 100 if gpus else None,
    )
