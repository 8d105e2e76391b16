"""Plain classes as Ray Serve deployments, with our options. Every queue gets a bound here."""

from typing import TypedDict

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from deployments.scaling import work_policy
from serve_app.config import DeploymentOptions

__all__ = ["ActorOptions", "ServeOptions", "deploy", "serve_options"]


def deploy(
    host: type,
    options: DeploymentOptions,
    *args: object,
    name: str | None = None,
    router: RequestRouterConfig | None = None,
) -> Application:
    """Bind a deployment of the class with its constructor's arguments; named like the class.

    router: how callers choose among the replicas; none: the less busy of two random ones.
    """
    keywords = serve_options(options)
    if router is not None:
        keywords["request_router_config"] = router
    return serve.deployment(host).options(name=name or host.__name__, **keywords).bind(*args)


class ActorOptions(TypedDict, total=False):
    """What a replica needs of its node."""

    num_cpus: float
    num_gpus: float
    memory: int
    accelerator_type: str
    resources: dict[str, float]
    label_selector: dict[str, str]


class ServeOptions(TypedDict, total=False):
    """The keywords of `Deployment.options` that this service sets."""

    num_replicas: int
    autoscaling_config: dict[str, object]
    ray_actor_options: ActorOptions
    max_replicas_per_node: int
    max_surge_percent: int
    max_ongoing_requests: int
    max_queued_requests: int
    graceful_shutdown_timeout_s: float
    health_check_period_s: float
    health_check_timeout_s: float
    request_router_config: RequestRouterConfig


def serve_options(options: DeploymentOptions) -> ServeOptions:
    """Translate; a range of replicas turns autoscaling on."""
    result: ServeOptions = {
        "ray_actor_options": _actor_options(options),
        "max_surge_percent": options.max_surge_percent,
        "max_ongoing_requests": options.max_ongoing_requests,
        "max_queued_requests": options.max_queued_requests,
        "graceful_shutdown_timeout_s": options.graceful_shutdown_timeout_s,
        "health_check_period_s": options.health_check_period_s,
        "health_check_timeout_s": options.health_check_timeout_s,
    }
    if options.max_replicas_per_node is not None:
        result["max_replicas_per_node"] = options.max_replicas_per_node
    if options.min_replicas == options.max_replicas:
        result["num_replicas"] = options.max_replicas
    else:
        result["autoscaling_config"] = {
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing_requests,
            "look_back_period_s": options.look_back_s,
            # Deprecated for variables that Ray Serve 2.60 does not heed yet.
            "metrics_interval_s": options.report_s,
            "upscale_delay_s": options.upscale_delay_s,
            "downscale_delay_s": options.downscale_delay_s,
        }
        if options.scaling == "work":
            result["autoscaling_config"]["policy"] = work_policy(options)
    return result


def _actor_options(options: DeploymentOptions) -> ActorOptions:
    """Leave out what is not asked for: Ray takes an empty value for a wish."""
    result: ActorOptions = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
    if options.memory:
        result["memory"] = options.memory
    if options.accelerator_type is not None:
        result["accelerator_type"] = options.accelerator_type
    if options.resources:
        result["resources"] = dict(options.resources)
    if options.label_selector:
        result["label_selector"] = dict(options.label_selector)
    return result
