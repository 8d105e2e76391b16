"""Canaries of models as SQL, on the connection of `SqlModelStore`, and how their jobs fare."""

import structlog
from sqlalchemy import Connection, bindparam, delete, func, select, update

from serve_app.database import codec
from serve_app.database.audit import note
from serve_app.database.connection import Database, Now
from serve_app.database.schema import canaries, jobs
from serve_app.models.canary import Canary, Score, Scores
from serve_app.models.entry import ModelEntry
from serve_app.types import JobState

__all__ = ["begin", "end", "find_all", "leave", "scores", "share"]

_log = structlog.get_logger()
_TO_CANARY = func.coalesce(jobs.c.canary, 0)
_ENDED = (
    select(
        _TO_CANARY.label("to_canary"),
        jobs.c.state,
        func.count().label("num"),
        func.avg(jobs.c.finished_at - jobs.c.started_at).label("run_s"),
    )
    .where(
        jobs.c.finished_at >= bindparam("since"),  # by its index; the next line says more
        jobs.c.created_at >= bindparam("since"),
        jobs.c.model_id == bindparam("model_id"),
    )
    .group_by(_TO_CANARY, jobs.c.state)
)


def find_all(connection: Connection) -> list[Canary]:
    """List the canaries, in order of their models; those of another version are left out."""
    found: list[Canary] = []
    for row in connection.execute(select(canaries).order_by(canaries.c.model_id)):
        try:
            entry = codec.load_entry(row.entry)
        except ValueError:
            _log.exception("canary_unreadable", model_id=row.model_id)
            continue
        if isinstance(entry, ModelEntry):
            found.append(Canary(entry=entry, share=row.share, since=row.since))
    return found


def begin(database: Database, connection: Connection, entry: ModelEntry, percent: float) -> None:
    """Send a share of a model's calls to an entry, in place of a canary that there is."""
    row = {
        "model_id": entry.id,
        "entry": codec.dump_entry(entry),
        "share": percent,
        "since": Now(),
    }
    leave(connection, entry.id)
    connection.execute(database.upsert(canaries, row))
    note(connection, "model.canary", entry.id, {"source": str(entry.source), "share": percent})


def share(connection: Connection, model_id: str, percent: float) -> bool:
    """Change the share of a canary; False: there is none."""
    change = update(canaries).where(canaries.c.model_id == model_id).values(share=percent)
    is_there = connection.execute(change).rowcount > 0
    if is_there:
        note(connection, "model.canary", model_id, {"share": percent})
    return is_there


def end(connection: Connection, model_id: str) -> ModelEntry | None:
    """Remove a canary, and return its entry; jobs that wait for it go to the model."""
    gone = delete(canaries).where(canaries.c.model_id == model_id).returning(canaries.c.entry)
    text = connection.scalar(gone)
    if text is None:
        return None
    leave(connection, model_id)
    entry = codec.load_entry(text)
    return entry if isinstance(entry, ModelEntry) else None


def leave(connection: Connection, model_id: str) -> None:
    """Send the open jobs of a model's canary to the model, when they are run next."""
    is_open = jobs.c.finished_at.is_(None)
    of_canary = (jobs.c.model_id == model_id) & (jobs.c.canary == 1)
    connection.execute(update(jobs).where(is_open, of_canary).values(canary=None))


def scores(connection: Connection, model_id: str, since: float) -> Scores:
    """Count the jobs of a model and of its canary that were accepted since a time and ended."""
    counts: dict[int, dict[str, int]] = {0: {}, 1: {}}
    run_s: dict[int, float | None] = {0: None, 1: None}
    for row in connection.execute(_ENDED, {"model_id": model_id, "since": since}):
        state = "succeeded" if row.state == JobState.SUCCESS else str(row.state)
        counts[row.to_canary][state] = row.num
        if row.state == JobState.SUCCESS:
            run_s[row.to_canary] = row.run_s
    sides = [Score.model_validate({**counts[side], "run_s": run_s[side]}) for side in (0, 1)]
    return Scores(model=sides[0], canary=sides[1])
