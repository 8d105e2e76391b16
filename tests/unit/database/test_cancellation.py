"""A caller that is cancelled leaves no open transaction behind."""

import asyncio
import sqlite3
import time

from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from tests.builders import job_request


async def test_cancelled_add_leaves_the_database_free_for_others(tmp_path):
    path = tmp_path / "jobs.db"
    store = await open_job_store(DatabaseConfig(url=f"sqlite:///{path}"))
    other = sqlite3.connect(path, timeout=0.5, isolation_level=None)
    begun = time.perf_counter()
    for _ in range(5):
        await store.add(job_request(), max_open=1000)
    took_s = (time.perf_counter() - begun) / 5
    num_cancelled = 0
    for offset in range(60):
        task = asyncio.create_task(store.add(job_request(), max_open=1000))
        await asyncio.sleep(offset / 60 * took_s)  # at any moment of it
        task.cancel()
        num_cancelled += isinstance(
            (await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError
        )
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()
    assert num_cancelled > 10
    await store.add(job_request(), max_open=1000)
    await store.close()
