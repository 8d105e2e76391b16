"""`dreamserve models`: entries of the catalogue, also those that were added at run time."""

from collections.abc import Awaitable, Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import NoReturn, TypeVar

import typer
import yaml
from pydantic import ValidationError
from rich.table import Table

from serve_app import errors
from serve_app.cli.database import read_config, with_database
from serve_app.cli.table import show_table
from serve_app.config import AppConfig
from serve_app.config.serve_file import read_yaml
from serve_app.database.models import SqlModelStore
from serve_app.models import AddOn, Catalogue, Entry
from serve_app.models.entry import HubSource, ModelEntry, anchored, read_entry
from serve_app.models.problem import problems
from serve_app.models.registry import Registry
from serve_app.models.weights.told import with_told
from serve_app.models.weights.verify import Verdict, verify

__all__ = ["add", "list_models", "read_checked", "remove", "verify_models", "with_registry"]

T = TypeVar("T")


def add(config: Path, file: Path, *, is_checked: bool) -> None:
    """Add the entry of a file, or replace the run-time entry of its id."""
    settings = read_config(config)
    entry = read_checked(file, settings, is_checked=is_checked)
    try:
        with_registry(settings, lambda registry: registry.add(entry))
    except errors.InvalidRequest as exc:
        _fail(exc.detail)
    typer.echo(entry.id)
    if isinstance(entry, ModelEntry) and entry.placement == "own":
        typer.echo("deploy what `dreamserve config` prints to have it served", err=True)


def read_checked(file: Path, settings: AppConfig, *, is_checked: bool) -> Entry:
    """Read the entry of a file, with what its weights tell; exit code 1 when they are refused."""
    try:
        values = read_yaml(file)
        entry = read_entry(values)
    except ValidationError as exc:
        _fail("\n".join(chain.from_iterable(problems(exc, values).values())))
    if is_checked and (reason := _verify(entry, settings, _models(settings)).refused):
        _fail(f"{entry.id}: {reason}")
    return with_told(entry, settings.catalogue, settings.root_dir)


def remove(config: Path, entry_id: str) -> None:
    """Remove a run-time entry; exit code 1 when there is none."""
    try:
        with_registry(read_config(config), lambda registry: registry.remove(entry_id))
    except errors.ModelNotFound:
        _fail("nothing was added at run time under this id")


def list_models(config: Path) -> None:
    """Print all entries."""
    table = Table("id", "type", "source", "served by", "from")
    for entry, is_added in _entries(read_config(config)):
        type_ = entry.type if isinstance(entry, AddOn) else "model"
        served_by = entry.placement if isinstance(entry, ModelEntry) else "its models"
        origin = "run time" if is_added else "file"
        table.add_row(entry.id, type_, _source(entry), served_by, origin)
    show_table(table)


def verify_models(config: Path, entry_id: str | None) -> None:
    """Judge one entry or all; exit code 1 when any may not be loaded."""
    settings = read_config(config)
    models = _models(settings)
    chosen = [entry for entry, _ in _entries(settings) if entry_id in (None, entry.id)]
    if not chosen:
        _fail("no entry has this id")
    has_failed = False
    for entry in chosen:
        verdict = _verify(entry, settings, models)
        has_failed = has_failed or verdict.refused is not None
        typer.echo(f"{entry.id}: {verdict.refused or f'sound, digest {verdict.digest}'}")
        if entry_id is not None:
            typer.echo(yaml.safe_dump({"sha256": verdict.sha256}), nl=False)
    if has_failed:
        raise typer.Exit(1)


def _verify(entry: Entry, settings: AppConfig, models: Mapping[str, ModelEntry]) -> Verdict:
    return verify(anchored(entry, settings.root_dir), settings.catalogue, models)


def _models(settings: AppConfig) -> dict[str, ModelEntry]:
    """Return all models by id, with paths of this machine."""
    entries = (anchored(entry, settings.root_dir) for entry, _ in _entries(settings))
    return {entry.id: entry for entry in entries if isinstance(entry, ModelEntry)}


def _entries(settings: AppConfig) -> list[tuple[Entry, bool]]:
    return with_registry(settings, lambda registry: registry.entries())


def with_registry(settings: AppConfig, work: Callable[[Registry], Awaitable[T]]) -> T:
    """Work on the entries of a deployment; raises as `with_database`."""
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)
    has_pool = fixed.has_pool(settings.pool)
    return with_database(
        settings,
        lambda database: work(Registry(fixed, SqlModelStore(database), has_pool=has_pool)),
    )


def _source(entry: Entry) -> str:
    source = entry.source
    if not isinstance(source, HubSource):
        return str(source)
    return f"{source.hub}@{source.revision}" + (f"/{source.file}" if source.file else "")


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
