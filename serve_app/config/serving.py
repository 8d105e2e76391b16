"""Scale and queue bounds of each deployment; plain values that `deployments/` hands to Serve."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serve_app.config.components import Seconds, Section

__all__ = ["DeploymentOptions", "ModelOptions", "ServingConfig"]

_LABEL = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"  # what Ray takes as a label's value


Cpus = Annotated[float, Field(ge=0, description="Sets the CPUs that Ray reserves per replica.")]
Calls = Annotated[int, Field(ge=1, description="Limits the calls inside one replica.")]


class DeploymentOptions(Section):
    """Replicas, resources and bounds of one deployment. Ray Serve's names and meanings."""

    min_replicas: int = Field(
        default=1, ge=0, description="Sets the number of replicas that stay when idle."
    )
    max_replicas: int = Field(
        default=1, ge=1, description="Limits the number of replicas under load."
    )
    num_cpus: Cpus = 0.1
    num_gpus: float = Field(
        default=0.0, ge=0, description="Sets the GPUs that Ray reserves per replica."
    )
    memory: int = Field(
        default=0, ge=0, description="Sets the bytes of RAM that Ray reserves per replica; 0: none."
    )
    accelerator_type: str | None = Field(
        default=None,
        pattern=_LABEL,
        description="Restricts replicas to nodes with this accelerator, by Ray's name (L4, "
        "A100); none: any node.",
    )
    resources: dict[str, float] = Field(
        default={}, description="Sets the custom resources that Ray reserves per replica, by name."
    )
    label_selector: dict[str, str] = Field(
        default={},
        description="Restricts replicas to nodes with these labels, in Ray's selector syntax.",
    )
    max_replicas_per_node: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Limits the replicas on one node; none: as many as fit.",
    )
    max_surge_percent: int = Field(
        default=20,
        ge=0,
        le=100,
        description="Limits the replicas that a deploy may have beyond those that should run, in "
        "percent of these, rounded up: a new one is ready before an old one stops. It needs room "
        "for them; 0: the old ones stop first, and a deployment of one replica pauses.",
    )
    max_ongoing_requests: Calls = 32
    target_ongoing_requests: float = Field(
        default=16, gt=0, description="Sets the calls per replica that autoscaling aims at."
    )
    max_queued_requests: int = Field(
        default=256,
        ge=1,
        description="Limits the calls that wait at each caller; further ones are refused.",
    )
    add_on_slack_calls: int = Field(
        default=1,
        ge=0,
        description="Sets how many calls more than the least busy replica a replica may have and "
        "still get calls that name add-ons which it holds (deployments of models only).",
    )
    scaling: Literal["calls", "work"] = Field(
        default="calls",
        description="Says what autoscaling goes by. calls: calls per replica; work: denoising "
        "steps, by their measured time (deployments of models only).",
    )
    target_utilisation: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="Sets the share of the time at work that `work` aims at.",
    )
    target_wait_s: Seconds = Field(
        default=10.0,
        gt=0,
        description="Sets the seconds within which work that has piled up should be done (`work`).",
    )
    look_back_s: Seconds = Field(
        default=15.0,
        gt=10,
        description="Sets the seconds that autoscaling averages over; Ray looks five times "
        "within them.",
    )
    report_s: Seconds = Field(
        default=2.0,
        gt=0,
        le=10,
        description="Sets the seconds between the reports that autoscaling uses; a burst waits "
        "for the next one.",
    )
    upscale_delay_s: Seconds = Field(
        default=3.0, description="Sets the seconds of load after which a replica is added."
    )
    downscale_delay_s: Seconds = Field(
        default=300.0, description="Sets the seconds of calm after which a replica is removed."
    )
    graceful_shutdown_timeout_s: Seconds = Field(
        default=120.0,
        description="Limits the seconds that calls in flight may take when a replica stops; set "
        "it above the longest generation.",
    )
    health_check_period_s: Seconds = Field(
        default=5.0, gt=0, description="Sets the seconds between health checks."
    )
    health_check_timeout_s: Seconds = Field(
        default=30.0, gt=0, description="Limits the seconds of one health check."
    )

    @model_validator(mode="after")
    def _bounds_agree(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is greater than max_replicas")
        return self


class ModelOptions(DeploymentOptions):
    """Those of a model with a deployment of its own, whose engine shares out what waits inside."""

    num_cpus: Cpus = 0.5
    # All that drivers may send: Serve's own queue, at the caller, knows no owners. The engine does.
    max_ongoing_requests: Calls = 256


class ServingConfig(Section):
    """One entry per deployment that is not a model; models carry theirs in the catalogue."""

    ingress: DeploymentOptions = DeploymentOptions(
        num_cpus=0, max_ongoing_requests=512, target_ongoing_requests=200
    )
    # Calls wait inside, in the order of their API keys' turns, and not at the caller.
    preprocess: DeploymentOptions = DeploymentOptions(
        max_ongoing_requests=256, target_ongoing_requests=8
    )
    safety: DeploymentOptions = DeploymentOptions(max_ongoing_requests=8, target_ongoing_requests=4)
    upload: DeploymentOptions = DeploymentOptions()
    pool: DeploymentOptions = DeploymentOptions(
        num_cpus=0.5, max_ongoing_requests=256, target_ongoing_requests=32
    )
    janitor: DeploymentOptions = DeploymentOptions(num_cpus=0)

    @model_validator(mode="after")
    def _one_janitor(self) -> Self:
        if self.janitor.max_replicas != 1 or self.janitor.min_replicas != 1:
            raise ValueError("the janitor has exactly one replica")
        return self

    @model_validator(mode="after")
    def _no_work_without_steps(self) -> Self:
        options = (getattr(self, name) for name in type(self).model_fields)
        if any(one.scaling == "work" for one in options):
            raise ValueError("scaling: work is for deployments of models")
        return self
