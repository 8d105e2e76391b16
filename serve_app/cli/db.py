"""`dreamserve db`: the tables of a deployment's database, their version, copies of them."""

from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.database import read_config
from serve_app.cli.option import DEFAULT_CONFIG, ConfigPath
from serve_app.config import DatabaseConfig
from serve_app.database import backup as backups
from serve_app.database import migrate
from serve_app.database.connection import shown_url

__all__ = ["app"]

app = typer.Typer(name="db", no_args_is_help=True, help="The database of a deployment.")

_WORKS = {
    migrate.Fitness.CURRENT: "current",
    migrate.Fitness.NEWER: "newer than this program, which works with them",
}


@app.command()
def status(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Show which version the tables have; exit code 1 where a service would not start."""
    database = _read(config)
    found = migrate.status(database)
    typer.echo(f"database: {shown_url(database)}")
    typer.echo(f"tables:   {found.version or 'none'}")
    typer.echo(f"program:  {found.wanted}")
    typer.echo(found.advice or f"The tables are {_WORKS[found.fitness]}.")
    if found.advice is not None:
        raise typer.Exit(1)


@app.command()
def upgrade(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Bring the tables up to this program's version; services of the version before go on."""
    database = _read(config)
    before = migrate.status(database)
    migrate.upgrade(database)
    after = migrate.status(database)
    if before.version == after.version:
        typer.echo(f"nothing to do: the tables have version {after.version}")
    else:
        typer.echo(f"the tables have version {after.version} now, after {before.version or 'none'}")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="where to write it; must not exist")],
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Copy an SQLite database while it is used; for PostgreSQL, say what does."""
    backups.backup(_read(config), file)
    typer.echo(f"wrote {file}, {file.stat().st_size} bytes")


@app.command()
def check(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Look whether the database is sound: version, tables, and on SQLite every page of the file."""
    problems = backups.problems(_read(config))
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("sound")


def _read(config: Path) -> DatabaseConfig:
    return read_config(config).database
