"""`dreamserve deploy`: a Serve config file to a running cluster, without a pause."""

from pathlib import Path

import typer

from serve_app.cli import serving
from serve_app.cli.config import parted
from serve_app.models.rollout import Patience, RolloutFailed, roll_out

__all__ = ["deploy"]


def deploy(config: Path, address: str, timeout_s: float) -> None:
    """Deploy the file; exit code 1 when it did not start and what ran before was put back."""
    file = parted(config)
    serving.prepare_to_join(config)
    # Ray takes a second to import; wrong settings are told before.
    from deployments.dashboard import Dashboard  # noqa: PLC0415

    try:
        roll_out(Dashboard(address), file, typer.echo, Patience(timeout_s))
    except RolloutFailed as exc:
        typer.echo(f"dreamserve: {exc}", err=True)
        raise typer.Exit(1) from exc
    typer.echo("deployed")
