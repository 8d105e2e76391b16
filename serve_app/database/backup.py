"""A copy of an SQLite job database while it is used, and whether a database is sound. Blocking."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.connection import database_url
from serve_app.database.migrate import connected, status
from serve_app.database.schema import metadata

__all__ = ["backup", "problems"]


def backup(config: DatabaseConfig, target: Path) -> None:
    """Copy an SQLite database, as it is at one moment, into a new file.

    Raises:
        ValueError: it is none of SQLite, or the file exists already.
        OSError: the file cannot be written, or there is no database.
        errors.JobStoreUnavailable: the database cannot be read.
    """
    url = database_url(config)
    if url.drivername != "sqlite":
        raise ValueError(
            "PostgreSQL makes its own backups: pg_dump --format=custom --file FILE DATABASE; "
            "docs/deployment.md says more"
        )
    source = Path(str(url.database)).resolve(strict=True)
    if target.exists():
        raise ValueError(f"{target} exists already")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        _copy(source, unfinished)
        unfinished.rename(target)
    except sqlite3.Error as exc:
        raise errors.JobStoreUnavailable(f"{source} cannot be copied: {exc}") from exc
    finally:
        unfinished.unlink(missing_ok=True)


def problems(config: DatabaseConfig) -> list[str]:
    """List what is wrong with the database; empty if nothing is.

    Raises:
        errors.JobStoreUnavailable: no connection, or it is no database at all.
    """
    found = status(config)
    if found.advice is not None:
        return [found.advice]
    with connected(config) as connection:
        return [*_missing(connection), *_broken(connection)]


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)  # it holds the prompts of everybody
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as here,
        closing(sqlite3.connect(target)) as there,
    ):
        here.backup(there)


def _missing(connection: Connection) -> Iterator[str]:
    seen = inspect(connection)
    tables = set(seen.get_table_names())
    for table in metadata.sorted_tables:
        if table.name not in tables:
            yield f"the table {table.name} is missing"
            continue
        columns = {column["name"] for column in seen.get_columns(table.name)}
        for name in sorted(set(table.c.keys()) - columns):
            yield f"the column {table.name}.{name} is missing"


def _broken(connection: Connection) -> Iterator[str]:
    """Read every page of an SQLite file; PostgreSQL checks what it reads as it goes."""
    if connection.dialect.name != "sqlite":
        return
    for (said,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if said != "ok":
            yield f"the file is damaged: {said}"
