"""`dreamserve config`: the Serve config file with the models that were added at run time."""

from pathlib import Path

import typer
import yaml

from serve_app.cli.database import with_database
from serve_app.config.serve_file import read_file
from serve_app.database.models import SqlModelStore
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.application import with_models

__all__ = ["show"]


def show(config: Path) -> None:
    """Print the file as YAML, for `serve deploy`; the same entries make the same text."""
    read = read_file(config)
    settings = read.settings
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)
    entries = with_database(settings, lambda database: SqlModelStore(database).entries())
    own = (
        entry
        for entry in entries
        if isinstance(entry, ModelEntry) and entry.placement == "own" and entry.id not in fixed
    )
    typer.echo(yaml.safe_dump(with_models(read.values, own), sort_keys=False), nl=False)
