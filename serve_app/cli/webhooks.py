"""`dreamserve webhooks`: messages to receivers, what became of them, another try."""

from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.table import Table

from serve_app.cli.database import read_config, with_database
from serve_app.cli.jobs import duration
from serve_app.cli.option import DEFAULT_CONFIG, ConfigPath
from serve_app.cli.table import show_table
from serve_app.database.operator import list_messages, retry_message
from serve_app.jobs.number import MAX_ID
from serve_app.webhooks.protocol import DeliveryState

__all__ = ["app"]

app = typer.Typer(name="webhooks", no_args_is_help=True, help="Webhook messages of a deployment.")


@app.command("list")
def show_list(
    config: ConfigPath = DEFAULT_CONFIG,
    state: Annotated[DeliveryState | None, typer.Option(help="only of this state")] = None,
    job: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="only of the job with this id")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="most rows")] = 50,
) -> None:
    """List messages, the newest first; of their URLs only the host, since paths may be secret."""
    table = Table("id", "job", "state", "host", "attempts", "age", "next attempt")
    rows = with_database(
        read_config(config), lambda database: list_messages(database, limit, state, job)
    )
    for row in rows:
        due = "" if row.due_s is None else f"in {duration(row.due_s)}"
        host = urlsplit(row.url).hostname or ""
        cells = (row.state, host, str(row.attempts), duration(row.age_s), due)
        table.add_row(row.id, str(row.job_id), *cells)
    show_table(table)


@app.command()
def retry(message_id: str, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Send a message now, whatever became of it before. Exit code 1 where there is none."""
    if not with_database(read_config(config), lambda database: retry_message(database, message_id)):
        typer.echo("no message has this id, or it is being sent", err=True)
        raise typer.Exit(1)
