"""A caller that is cancelled leaves no open transaction behind."""

import asyncio
import sqlite3
import statistics
import time

from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from tests.builders import job_request


async def test_cancelled_add_leaves_the_database_free_for_others(tmp_path):
    path = tmp_path / "jobs.db"
    store = await open_job_store(DatabaseConfig(url=f"sqlite:///{path}"))
    other = sqlite3.connect(path, timeout=10, isolation_level=None)
    times_s = []
    for _ in range(9):
        begun = time.perf_counter()
        await store.add(job_request(), max_open=1000)
        times_s.append(time.perf_counter() - begun)
    took_s = statistics.median(times_s)  # the first one takes longer, as does one that is disturbed
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
