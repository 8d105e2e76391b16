"""`dreamserve config`: the Serve config file with the models that were added at run time."""

from pathlib import Path

import typer
import yaml

from serve_app.cli.database import with_database
from serve_app.config import AppConfig
from serve_app.config.serve_file import read_file
from serve_app.database.models import SqlModelStore
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.application import with_models

__all__ = ["added_models", "show"]


def show(config: Path) -> None:
    """Print the file as YAML, for `serve deploy`; the same entries make the same text."""
    read = read_file(config)
    file = with_models(read.values, added_models(read.settings))
    typer.echo(yaml.safe_dump(file, sort_keys=False), nl=False)


def added_models(settings: AppConfig) -> list[ModelEntry]:
    """Read the models with replicas of their own that were added at run time.

    Raises:
        CatalogueError: the model files are wrong.
        errors.JobStoreUnavailable: the database does not answer, or has to be upgraded first.
    """
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)
    entries = with_database(settings, lambda database: SqlModelStore(database).entries())
    return [
        entry
        for entry in entries
        if isinstance(entry, ModelEntry) and entry.placement == "own" and entry.id not in fixed
    ]
