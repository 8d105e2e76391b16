"""`dreamserve jobs`: what was asked for, what became of it, another try."""

from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer
import yaml
from rich.table import Table

from serve_app import errors
from serve_app.cli.database import read_config, with_database, with_store
from serve_app.cli.option import DEFAULT_CONFIG, ConfigPath
from serve_app.cli.table import show_table
from serve_app.config import AppConfig
from serve_app.database.jobs import SqlJobStore
from serve_app.database.operator import cancel_job, list_jobs, retry_job
from serve_app.failure import to_failure
from serve_app.jobs.number import MAX_ID
from serve_app.storage import open_store
from serve_app.storage.link import FileLinks
from serve_app.types import Job, JobState

__all__ = ["app", "duration"]

JobId = Annotated[int, typer.Argument(min=1, max=MAX_ID)]

app = typer.Typer(name="jobs", no_args_is_help=True, help="Jobs of a deployment.")

_CANCELLED = to_failure(errors.Cancelled())
_TIMES = {"created_at", "started_at", "finished_at"}
_PRIVATE = {"prompt", "negative_prompt", "foreign"}


@app.command("list")
def show_list(
    config: ConfigPath = DEFAULT_CONFIG,
    state: Annotated[JobState | None, typer.Option(help="only of this state")] = None,
    model: Annotated[str | None, typer.Option(help="only of this model")] = None,
    key: Annotated[str | None, typer.Option(help="only of the key with this id")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="most rows")] = 50,
) -> None:
    """List jobs, the newest first."""
    table = Table("id", "state", "model", "key", "attempts", "done", "age", "why")
    rows = with_database(
        read_config(config), lambda database: list_jobs(database, limit, state, model, key)
    )
    for row in rows:
        done, age = f"{row.progress:.0%}", duration(row.age_s)
        cells = (row.state, row.model_id, row.key_id, str(row.attempts), done, age, row.code)
        table.add_row(str(row.id), *cells)
    show_table(table)


@app.command()
def show(
    job_id: JobId,
    config: ConfigPath = DEFAULT_CONFIG,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="show also what its client wrote")
    ] = False,
) -> None:
    """Print all that is known of a job, as YAML, without what its client wrote."""
    job = _find(read_config(config), job_id)
    values = job.model_dump(mode="json", exclude_defaults=True, exclude={"request": {"echo"}})
    spec = values["request"]["spec"]
    for name in _PRIVATE & spec.keys():
        spec[name] = spec[name] if prompts else f"{len(spec[name])} characters"
    for name in _TIMES & values.keys():
        values[name] = datetime.fromtimestamp(values[name], UTC).isoformat(timespec="seconds")
    typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def cancel(job_id: JobId, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """End an open job; its webhook is told. Exit code 1 where there is none."""
    # The API takes a second to import; the other commands can do without.
    from serve_app.api.replies.webhook import WebhookWriter  # noqa: PLC0415

    settings = read_config(config)
    files = open_store(settings.storage, settings.data_dir)
    writer = WebhookWriter(FileLinks(files, settings.storage).make)

    async def end(store: SqlJobStore) -> bool:
        job = await store.get(job_id)
        if job is None or job.state.is_final:
            return False
        body = await writer.write(job, _CANCELLED) if job.request.webhook else None
        return await cancel_job(store, job_id, body)

    if not with_store(settings, end):
        _fail(f"no open job has the id {job_id}")


@app.command()
def retry(job_id: JobId, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Run a failed or cancelled job again, or a queued one now. Exit code 1 where there is none."""
    if not with_database(read_config(config), lambda database: retry_job(database, job_id)):
        _fail(f"no failed, cancelled or queued job has the id {job_id}")


def duration(seconds: float) -> str:
    """Return a time as people say it: the largest unit of which there are two or more."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _find(settings: AppConfig, job_id: int) -> Job:
    job = with_store(settings, lambda store: store.get(job_id))
    if job is None:
        _fail(f"no job has the id {job_id}")
    return job


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
