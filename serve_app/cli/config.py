"""`dreamserve config`: the Serve config file with the models that were added at run time."""

from pathlib import Path

import typer
import yaml

from serve_app import __version__
from serve_app.cli.database import with_database
from serve_app.config import AppConfig
from serve_app.config.serve_file import ConfigFile, read_file
from serve_app.database.models import SqlModelStore
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.application import ServeFile, with_models
from serve_app.models.parts import in_parts

__all__ = ["parted", "show"]


def show(config: Path, *, is_parted: bool) -> None:
    """Print the file as YAML, for `serve deploy`; the same entries make the same text.

    is_parted: as `dreamserve deploy` sends it.
    """
    file = parted(config) if is_parted else _whole(read_file(config))
    typer.echo(yaml.dump(file, Dumper=_Plain, sort_keys=False), nl=False)


class _Plain(yaml.SafeDumper):
    """Writes equal parts out, where YAML would refer to the first: people read this."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # the base class has it
        return True


def parted(config: Path) -> ServeFile:
    """Return the file with an application for each part of the service.

    Raises:
        OSError: it cannot be read.
        ValueError: the settings or the model files are wrong.
        errors.JobStoreUnavailable: the database does not answer, or has to be upgraded first.
    """
    read = read_file(config)
    return in_parts(read.values, read.settings, _added(read.settings), __version__)


def _whole(read: ConfigFile) -> ServeFile:
    return with_models(read.values, _added(read.settings))


def _added(settings: AppConfig) -> list[ModelEntry]:
    """Read the models with replicas of their own that were added at run time."""
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)
    entries = with_database(settings, lambda database: SqlModelStore(database).entries())
    return [
        entry
        for entry in entries
        if isinstance(entry, ModelEntry) and entry.placement == "own" and entry.id not in fixed
    ]
