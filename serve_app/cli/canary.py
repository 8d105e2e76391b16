"""`dreamserve models canary|promote|rollback`: other weights on a share of a model's calls."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, TypeVar

import typer
from rich.table import Table

from serve_app import errors
from serve_app.cli.database import read_config
from serve_app.cli.models import read_checked, with_registry
from serve_app.cli.table import show_table
from serve_app.config import AppConfig
from serve_app.models.canaries import Canaries
from serve_app.models.canary import Canary, Score, Scores

__all__ = ["promote", "roll_back", "try_out"]

T = TypeVar("T")
_FIRST_SHARE = 5.0


def try_out(
    config: Path, model_id: str, file: Path | None, share: float | None, *, is_checked: bool
) -> None:
    """Begin a canary or change its share, if either is given; then show how it does."""
    settings = read_config(config)
    if file is not None:
        entry = read_checked(file, settings, is_checked=is_checked)
        if entry.id != model_id:
            _fail(f"{file} is of {entry.id}; the entry of a canary has the id of its model")
        first = _FIRST_SHARE if share is None else share
        _with_canaries(settings, lambda canaries: canaries.begin(entry, first))
    elif share is not None:
        _with_canaries(settings, lambda canaries: canaries.share(model_id, share))
    _show(*_with_canaries(settings, lambda canaries: canaries.find(model_id)))


def promote(config: Path, model_id: str) -> None:
    """Put a canary in place of the model's entry; exit code 1 when that cannot be."""
    _with_canaries(read_config(config), lambda canaries: canaries.promote(model_id))


def roll_back(config: Path, model_id: str) -> None:
    """Remove a canary; exit code 1 when there is none."""
    _with_canaries(read_config(config), lambda canaries: canaries.roll_back(model_id))


def _show(canary: Canary, scores: Scores) -> None:
    since = datetime.fromtimestamp(canary.since, UTC)
    typer.echo(
        f"{canary.entry.id}: {canary.share:g} % of the calls go to the canary, "
        f"which began {since:%Y-%m-%d %H:%M:%S} UTC"
    )
    table = Table("jobs since then", "succeeded", "failed", "cancelled", "failed of ended", "time")
    table.add_row("model", *_cells(scores.model))
    table.add_row("canary", *_cells(scores.canary))
    show_table(table)


def _cells(score: Score) -> tuple[str, ...]:
    counts = (score.succeeded, score.failed, score.cancelled)
    rate = "" if score.error_rate is None else f"{score.error_rate:.1%}"
    time = "" if score.run_s is None else f"{score.run_s:.2f} s"
    return (*map(str, counts), rate, time)


def _with_canaries(settings: AppConfig, work: Callable[[Canaries], Awaitable[T]]) -> T:
    try:
        return with_registry(settings, lambda registry: work(Canaries(registry)))
    except errors.ModelNotFound:
        _fail("no model has this id")
    except errors.InvalidRequest as exc:
        _fail(exc.detail)


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
