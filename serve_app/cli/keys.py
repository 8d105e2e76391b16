"""`dreamserve keys`: API keys of a deployment's database."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console
from rich.table import Table

from serve_app.cli.database import read_config, with_database
from serve_app.database.keys import SqlKeyStore

__all__ = ["create", "list_keys", "revoke"]

T = TypeVar("T")


def create(config: Path, name: str) -> None:
    """Make a key and print its secret, which cannot be had again."""
    key, secret = _with_keys(config, lambda keys: keys.create(name))
    typer.echo(f"{key.id}\n{secret}")


def list_keys(config: Path) -> None:
    """Print all keys, without their secrets."""
    table = Table("id", "name", "begins with", "state")
    for key in _with_keys(config, lambda keys: keys.list_keys()):
        table.add_row(key.id, key.name, key.prefix, "revoked" if key.revoked_at else "active")
    Console().print(table)


def revoke(config: Path, key_id: str) -> None:
    """End a key for good; exit code 1 when there is none."""
    if not _with_keys(config, lambda keys: keys.revoke(key_id)):
        typer.echo("no active key has this id", err=True)
        raise typer.Exit(1)


def _with_keys(config: Path, work: Callable[[SqlKeyStore], Awaitable[T]]) -> T:
    return with_database(read_config(config), lambda database: work(SqlKeyStore(database)))
