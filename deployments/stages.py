"""`Stages`: the deployments of the graph, as whoever drives jobs gets them."""

from collections.abc import Mapping
from dataclasses import dataclass

from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.models.application import StageName, stage_application, stage_deployment

__all__ = ["Stages", "stages_elsewhere"]


@dataclass(frozen=True)
class Stages:
    """The deployments that a driver needs; bound into ingress and janitor as one argument."""

    preprocess: DeploymentHandle
    generators: Mapping[str, DeploymentHandle]  # by model id
    pool: DeploymentHandle | None  # for all other models
    safety: DeploymentHandle
    upload: DeploymentHandle


def stages_elsewhere(*, has_pool: bool) -> Stages:
    """Return the stages that have applications of their own, whether these are there yet or not.

    Models then have theirs too, which `Directory` finds.
    """
    pool = _handle("pool") if has_pool else None
    return Stages(_handle("preprocess"), {}, pool, _handle("safety"), _handle("upload"))


def _handle(stage: StageName) -> DeploymentHandle:
    names = stage_deployment(stage), stage_application(stage)
    return serve.get_deployment_handle(*names, _check_exists=False)
