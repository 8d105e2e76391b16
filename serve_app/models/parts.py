"""The Serve config file of `dreamserve deploy`: an application for each part of the service.

Serve restarts all of an application when its `args` change. So each stage and each model gets one
of its own, whose `args` hold only what its replicas go by. In the file that an operator writes, the
first application has them all.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from serve_app.config import AppConfig, CatalogueConfig
from serve_app.config.serve_file import SettingsError, read_yaml
from serve_app.models.application import (
    MODEL_SECTIONS,
    ServeFile,
    StageName,
    application_name,
    deployment_name,
    model_of,
    stage_application,
    stage_deployment,
    with_models,
)
from serve_app.models.catalogue import Catalogue
from serve_app.models.entry import ModelEntry

__all__ = ["in_parts"]

_BUILDERS = "serve_app.app:build"
_EVERYWHERE = ("root_dir", "data_dir", "logging")
_SECTIONS: Mapping[StageName, tuple[str, ...]] = {
    "preprocess": (*_EVERYWHERE, "images", "hints", "storage"),
    "safety": (*_EVERYWHERE, "safety"),
    "upload": (*_EVERYWHERE, "storage"),
    "pool": (*MODEL_SECTIONS, "pool"),
}
_INHERITED = ("runtime_env", "logging_config")  # from the application that had all parts


def in_parts(
    file: ServeFile, settings: AppConfig, added: Iterable[ModelEntry], version: str
) -> ServeFile:
    """Return the file with applications for the stages, the models and those `added` later.

    The first application stays the one that answers calls. Options of deployments go along.

    Args:
        file: as the operator wrote it.
        settings: what the first application of the file says, read.
        added: models with replicas of their own that were added at run time.
        version: of this program; with another one all replicas are new.

    Raises:
        CatalogueError: the model files are wrong.
        SettingsError: the first application is not the whole service.
    """
    whole, *others = _mappings(with_models(file, added)["applications"])
    if whole.get("import_path") != _BUILDERS:
        raise SettingsError(f"applications.0.import_path: has to be {_BUILDERS}")
    catalogue = Catalogue.load(settings.catalogue, settings.root_dir)
    files = _Files(settings.catalogue, version)
    args = whole.get("args")
    args = args if isinstance(args, dict) else {}
    parts = [
        *_stages(args, files, has_pool=catalogue.has_pool(settings.pool)),
        *_models(args, files, (one.id for one in catalogue if one.placement == "own")),
        *_added(others, files),
    ]
    service: ServeFile = {
        **whole,
        "import_path": f"{_BUILDERS}_service",
        "args": {"config": args, "mark": files.mark()},
    }
    inherited = {name: whole[name] for name in _INHERITED if name in whole}
    strangers = [one for one in others if one.get("import_path") != f"{_BUILDERS}_model"]
    written = [*_with_options(service, parts, inherited), *strangers]
    return {**file, "applications": list[JsonValue](written)}


@dataclass(frozen=True, slots=True)
class _Part:
    """A deployment and the application that it has to itself."""

    deployment: str
    application: ServeFile


class _Files:
    """The catalogue's files, and marks of them: Serve compares arguments, and does not read files.

    version: of the program, which is in every mark.
    """

    def __init__(self, config: CatalogueConfig, version: str) -> None:
        self._version = version
        self._entries = _mappings([read_yaml(file) for file in sorted(config.path.glob("*.yaml"))])

    def entry(self, model_id: str) -> ServeFile:
        """Return a model's entry as it stands there."""
        return next(one for one in self._entries if one.get("id") == model_id)

    def mark(self) -> str:
        """Mark all of them."""
        return self._mark(self._entries)

    def mark_add_ons(self, model_id: str) -> str:
        """Mark what requests to a model may name."""
        return self._mark(one for one in self._entries if "type" in one and _fits(one, model_id))

    def mark_program(self) -> str:
        """Mark none of them."""
        return self._mark(())

    def _mark(self, entries: Iterable[ServeFile]) -> str:
        text = json.dumps([self._version, *entries], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fits(add_on: ServeFile, model_id: str) -> bool:
    models = add_on.get("models")
    return not isinstance(models, list) or not models or model_id in models


def _stages(args: ServeFile, files: _Files, *, has_pool: bool) -> Iterator[_Part]:
    serving = args.get("serving")
    for stage, sections in _SECTIONS.items():
        if stage == "pool" and not has_pool:
            continue
        config = {name: value for name, value in args.items() if name in sections}
        if isinstance(serving, dict) and stage in serving:
            config["serving"] = {stage: serving[stage]}
        mark = files.mark() if stage == "pool" else files.mark_program()
        values: ServeFile = {"stage": stage, "config": config, "mark": mark}
        application = _application(stage_application(stage), "stage", values)
        yield _Part(stage_deployment(stage), application)


def _models(args: ServeFile, files: _Files, model_ids: Iterable[str]) -> Iterator[_Part]:
    config = {name: value for name, value in args.items() if name in MODEL_SECTIONS}
    for model_id in model_ids:
        mark = files.mark_add_ons(model_id)
        values: ServeFile = {"model": files.entry(model_id), "config": config, "mark": mark}
        application = _application(application_name(model_id), "model", values)
        yield _Part(deployment_name(model_id), application)


def _added(applications: Iterable[ServeFile], files: _Files) -> Iterator[_Part]:
    """Find those of models that were added at run time, and mark them too."""
    for one in applications:
        model_id = model_of(str(one.get("name")))
        args = one.get("args")
        if one.get("import_path") == f"{_BUILDERS}_model" and model_id and isinstance(args, dict):
            marked: ServeFile = {**one, "args": {**args, "mark": files.mark_add_ons(model_id)}}
            yield _Part(deployment_name(model_id), marked)


def _application(name: str, builder: str, args: ServeFile) -> ServeFile:
    route: ServeFile = {"name": name, "route_prefix": None}  # only the ingress calls it
    return {**route, "import_path": f"{_BUILDERS}_{builder}", "args": args}


def _with_options(
    service: ServeFile, parts: Iterable[_Part], inherited: ServeFile
) -> Iterator[ServeFile]:
    """Move what the service says of deployments to the applications that have these by now."""
    options = {one.get("name"): one for one in _mappings(service.get("deployments"))}
    moved: list[ServeFile] = []
    for part in parts:
        application = {**inherited, **part.application}
        if (option := options.pop(part.deployment, None)) is not None:
            application["deployments"] = [option]
        moved.append(application)
    yield {**service, "deployments": list[JsonValue](options.values())}
    yield from moved


def _mappings(values: JsonValue) -> list[ServeFile]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
