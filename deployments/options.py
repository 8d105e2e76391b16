"""Plain classes as Ray Serve deployments, with our options. Every queue gets a bound here."""

from typing import TypedDict

from ray import serve
from ray.serve import Application

from serve_app.config import DeploymentOptions

__all__ = ["ServeOptions", "deploy", "serve_options"]


def deploy(
    host: type, options: DeploymentOptions, *args: object, name: str | None = None
) -> Application:
    """Bind a deployment of the class with its constructor's arguments; named like the class."""
    return (
        serve.deployment(host)
        .options(name=name or host.__name__, **serve_options(options))
        .bind(*args)
    )


class ServeOptions(TypedDict, total=False):
    """The keywords of `Deployment.options` that this service sets."""

    num_replicas: int
    autoscaling_config: dict[str, float]
    ray_actor_options: dict[str, float]
    max_ongoing_requests: int
    max_queued_requests: int
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float


def serve_options(options: DeploymentOptions) -> ServeOptions:
    """Translate; a range of replicas turns autoscaling on."""
    result: ServeOptions = {
        "ray_actor_options": {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        "max_ongoing_requests": options.max_ongoing_requests,
        "max_queued_requests": options.max_queued_requests,
        "graceful_shutdown_timeout_s": options.graceful_shutdown_timeout_s,
        "health_check_period_s": options.health_check_period_s,
        "health_check_timeout_s": options.health_check_timeout_s,
    }
    if options.min_replicas == options.max_replicas:
        result["num_replicas"] = options.max_replicas
    else:
        result["autoscaling_config"] = {
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing_requests,
            "upscale_delay_s": options.upscale_delay_s,
            "downscale_delay_s": options.downscale_delay_s,
        }
    return result
