"""Parts of the service that have Serve applications of their own: names, arguments, models' file.

Serve compares applications one by one, so one that comes, changes or goes leaves the replicas of
all others alone. A model that was added while the service runs always has one; `serve_app.models.
parts` gives one to every stage and model.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import JsonValue

from serve_app.config import AppConfig
from serve_app.config.components import Section
from serve_app.models.entry import ModelEntry

__all__ = [
    "MODEL_SECTIONS",
    "ModelArgs",
    "ServeFile",
    "ServiceArgs",
    "StageArgs",
    "StageName",
    "application_name",
    "deployment_name",
    "model_of",
    "stage_application",
    "stage_deployment",
    "with_models",
]

ServeFile = dict[str, JsonValue]  # a Serve config file as it was read
StageName = Literal["preprocess", "safety", "upload", "pool"]

_PREFIX = "model-"
_BUILDER = "serve_app.app:build_model"
# What a model's replicas go by. A change of anything else must not restart them.
MODEL_SECTIONS = ("root_dir", "data_dir", "catalogue", "engine", "reload", "database", "logging")


class ServiceArgs(Section):
    """What the application of the ingress is built from where the stages have theirs.

    mark: of what the arguments do not say, such as files; a change of it starts new replicas.
    """

    config: AppConfig
    mark: str = ""


class StageArgs(ServiceArgs):
    """What the application of one stage is built from."""

    stage: StageName


class ModelArgs(ServiceArgs):
    """What the application of one model is built from."""

    model: ModelEntry


def application_name(model_id: str) -> str:
    """Name a model's own application."""
    return f"{_PREFIX}{model_id}"


def model_of(application: str) -> str | None:
    """Return the id of the model whose application this is; None if it is no model's."""
    return application.removeprefix(_PREFIX) if application.startswith(_PREFIX) else None


def deployment_name(model_id: str) -> str:
    """Name the deployment of a model, in whatever application it is."""
    return f"Generator:{model_id}"


def stage_application(stage: StageName) -> str:
    """Name a stage's own application."""
    return f"stage-{stage}"


def stage_deployment(stage: StageName) -> str:
    """Name the deployment of a stage, in whatever application it is."""
    return stage.capitalize()


def with_models(file: ServeFile, models: Iterable[ModelEntry]) -> ServeFile:
    """Add to a Serve config file exactly one application for each of these models.

    What else an application of a model says there (`deployments`, `runtime_env`) stays. The first
    application is the service itself.
    """
    applications = file["applications"]
    assert isinstance(applications, list), "the file's settings were read before"
    others = [one for one in applications if _read(one, "import_path") != _BUILDER]
    known = {_read(one, "name"): one for one in applications if isinstance(one, dict)}
    args = _read(others[0], "args")
    config = {
        name: value
        for name, value in (args if isinstance(args, dict) else {}).items()
        if name in MODEL_SECTIONS
    }
    for model in models:
        name = application_name(model.id)
        entry = model.model_dump(mode="json", exclude_unset=True)
        fixed: ServeFile = {
            "name": name,
            "route_prefix": None,  # only the ingress calls it
            "import_path": _BUILDER,
            "args": {"model": entry, "config": config},
        }
        others.append({**known.get(name, {}), **fixed})
    return {**file, "applications": others}


def _read(application: JsonValue, name: str) -> JsonValue:
    return application.get(name) if isinstance(application, dict) else None
