"""`Stages`: the deployments of the graph, as one argument."""

from collections.abc import Mapping
from dataclasses import dataclass

from ray.serve.handle import DeploymentHandle

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """The deployments that a driver needs; bound into ingress and janitor as one argument."""

    preprocess: DeploymentHandle
    generators: Mapping[str, DeploymentHandle]  # by model id
    pool: DeploymentHandle | None  # for all other models
    safety: DeploymentHandle
    upload: DeploymentHandle
