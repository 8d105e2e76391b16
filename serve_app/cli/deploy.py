"""`dreamserve deploy`: a Serve config file to a running cluster, without a pause."""

from pathlib import Path

import typer

from serve_app import __version__
from serve_app.cli import serving
from serve_app.cli.config import added_models
from serve_app.config.serve_file import read_file
from serve_app.models.parts import in_parts
from serve_app.models.rollout import Patience, RolloutFailed, roll_out

__all__ = ["deploy"]


def deploy(config: Path, address: str, timeout_s: float) -> None:
    """Deploy the file; exit code 1 when it did not start and what ran before was put back."""
    read = read_file(config)
    file = in_parts(read.values, read.settings, added_models(read.settings), __version__)
    serving.prepare_to_join(config)
    # Ray takes a second to import; wrong settings are told before.
    from deployments.dashboard import Dashboard  # noqa: PLC0415

    try:
        roll_out(Dashboard(address), file, typer.echo, Patience(timeout_s))
    except RolloutFailed as exc:
        typer.echo(f"dreamserve: {exc}", err=True)
        raise typer.Exit(1) from exc
    typer.echo("deployed")
