"""The SQL of one job from acceptance to its webhook, counted in this process."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, event

from serve_app.config import DatabaseConfig, JobsConfig, LimitsConfig
from serve_app.database import open_job_store
from serve_app.database.jobs import SqlJobStore
from serve_app.database.outbox import SqlOutbox
from serve_app.jobs import Driver
from serve_app.service.admission import default_rules
from serve_app.testing.graph import FakeGraph
from serve_app.types import GenerationSpec, Job, JobRequest, Kind, OutputPlan
from serve_app.webhooks.protocol import DeliveryState

__all__ = ["REQUEST", "count", "table"]

_SPEC = GenerationSpec(
    model_id="fake",
    kind=Kind.TEXT2IMG,
    prompt="a lighthouse at night",
    height=64,
    width=64,
    steps=4,
    seed=1,
    scheduler="UniPCMultistepScheduler",
)
REQUEST = JobRequest(
    spec=_SPEC,
    output=OutputPlan(keys=("generations/a.png",)),
    key_id="open",
    base_url="http://127.0.0.1",
    webhook="http://127.0.0.1/hook",
)


def count(url: str | None) -> dict[str, list[str]]:
    """Return the statements of each part of a job's life; url: None for SQLite.

    Those that open and close a transaction are among them.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = DatabaseConfig(url=SecretStr(url or f"sqlite:///{Path(folder) / 'road.db'}"))
        return asyncio.run(_count(config))


async def _count(config: DatabaseConfig) -> dict[str, list[str]]:
    jobs = await open_job_store(config)
    driver = Driver(jobs, FakeGraph(duration_s=0.2), JobsConfig(), _body)
    found: dict[str, list[str]] = {}
    try:
        for _ in range(2):  # the first one meets what is done once
            found = await _one(jobs, driver)
    finally:
        await driver.close()
        await jobs.close()
    return found


async def _one(jobs: SqlJobStore, driver: Driver) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rules = default_rules(LimitsConfig())
    with _noted(found.setdefault("accept, with a key", [])):
        await jobs.admit(REQUEST.key_id, 500, rules)
        job = await driver.accept(partial(jobs.add, REQUEST, 500, rules, None), REQUEST.key_id)
    with _noted(found.setdefault("settle", [])):
        await driver.wait(job.id, 10.0)
    with _noted(found.setdefault("fetch", [])):
        await jobs.get(job.id)
    outbox = SqlOutbox(jobs.database)
    with _noted(found.setdefault("webhook", [])):
        for message in await outbox.claim("road", 60.0, 8):
            await outbox.settle("road", message.id, DeliveryState.DELIVERED)
    return found


async def _body(_job: Job, _outcome: object) -> str:
    return "{}"


@contextmanager
def _noted(into: list[str]) -> Iterator[None]:
    """Note the statements of all engines, in their order."""

    def before(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        into.append(" ".join(statement.split()))

    def ended(_connection: Any) -> None:
        into.append("COMMIT")

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "commit", ended)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", before)
        event.remove(Engine, "commit", ended)


def table(counted: dict[str, list[str]]) -> Iterator[str]:
    """Yield the lines of a table: how many statements and transactions, and which."""
    yield "| part | statements | transactions | which |"
    yield "|---|---|---|---|"
    for part, statements in counted.items():
        words = Counter(_verb(statement) for statement in statements)
        which = ", ".join(f"{number} {verb}" for verb, number in words.items())
        yield f"| {part} | {len(statements)} | {statements.count('COMMIT')} | {which} |"


def _verb(statement: str) -> str:
    return statement.split(maxsplit=1)[0].upper()
