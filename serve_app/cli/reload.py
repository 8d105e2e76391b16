"""`dreamserve models reload|status`: which weights the replicas of a model serve."""

from pathlib import Path
from typing import NoReturn

import typer
from rich.table import Table

from serve_app import errors
from serve_app.cli.database import read_config, with_database
from serve_app.cli.table import show_table
from serve_app.config import AppConfig
from serve_app.database.connection import Database
from serve_app.database.models import SqlModelStore
from serve_app.models import Catalogue
from serve_app.models.protocol import Desired, ReplicaPhase, ReplicaReport
from serve_app.models.registry import Registry
from serve_app.models.reload import Reloads, ReloadState, read_revision

__all__ = ["reload", "status"]


def reload(config: Path, model_id: str, revision: str | None) -> None:
    """Want the next weights of a model; its replicas follow within `reload.poll_s` seconds."""
    settings = read_config(config)
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)

    async def request(database: Database) -> Desired:
        store = SqlModelStore(database)
        entry = await _registry(settings, fixed, store).find_model(model_id)
        wanted = read_revision(revision, has_revisions=entry.has_revisions)
        return await store.advance(model_id, wanted)

    try:
        wanted = with_database(settings, request)
    except errors.ModelNotFound:
        _fail("no model has this id")
    except errors.InvalidRequest as exc:
        _fail(f"{exc.field}: {exc.detail}")
    typer.echo(f"{model_id}: generation {wanted.weights_version} is wanted")


def status(config: Path, model_id: str) -> None:
    """Print what is wanted and what each replica serves; exit code 1 when one refused."""
    settings = read_config(config)
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)

    async def ask(database: Database) -> ReloadState:
        store = SqlModelStore(database)
        await _registry(settings, fixed, store).find_model(model_id)
        return await Reloads(store, _notify_nobody, settings.reload).status(model_id)

    try:
        state = with_database(settings, ask)
    except errors.ModelNotFound:
        _fail("no model has this id")
    of = f", revision {state.wanted.revision}" if state.wanted.revision else ""
    typer.echo(f"{model_id}: generation {state.wanted.weights_version}{of} is wanted")
    table = Table("replica", "state", "of", "serves", "loaded in", "digest", "reason")
    for report in state.replicas:
        table.add_row(*_row(report))
    show_table(table)
    if state.phase is ReplicaPhase.FAILED:
        raise typer.Exit(1)


def _registry(settings: AppConfig, fixed: Catalogue, store: SqlModelStore) -> Registry:
    return Registry(fixed, store, has_pool=fixed.has_pool(settings.pool))


def _row(report: ReplicaReport) -> tuple[str, ...]:
    serves = "nothing" if report.serving is None else str(report.serving)
    load, digest = f"{report.load_s:.1f} s", report.digest[:12]
    version = str(report.weights_version)
    return report.replica_id, report.phase, version, serves, load, digest, report.reason


async def _notify_nobody(_model_id: str) -> frozenset[str]:
    """Leave replicas to look by themselves: they cannot be reached from here."""
    return frozenset()


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
