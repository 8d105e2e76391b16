"""How many database connections a process needs: `python -m benchmarks.connections URL`.

Callers accept, read and settle jobs as fast as they can, on an empty PostgreSQL, through pools of
several sizes; beside them one more that comes now and then, whose waits are what a client feels.
"""

import argparse
import asyncio
import statistics
import time

from pydantic import SecretStr

from serve_app.config import DatabaseConfig
from serve_app.database.jobs import SqlJobStore
from serve_app.database.migrate import upgrade
from serve_app.jobs.protocol import Lease
from serve_app.types import GenerationSpec, JobRequest, JobResult, Kind, OutputPlan

_LEASE = Lease("benchmark", 60.0)
_SPEC = GenerationSpec(
    model_id="demo",
    kind=Kind.TEXT2IMG,
    prompt="a lighthouse at night",
    height=512,
    width=512,
    steps=20,
    seed=1,
    scheduler="DDIMScheduler",
)
_REQUEST = JobRequest(
    spec=_SPEC,
    output=OutputPlan(keys=("generations/a.png",)),
    key_id="open",
    base_url="http://localhost",
)
_RESULT = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.0)
_POLLS = 3  # of a client that waits for its job
_PROBE_S = 0.05


async def main() -> None:
    """Measure each size and print a table."""
    options = _options()
    upgrade(DatabaseConfig(url=SecretStr(options.url)))
    print("| connections | callers | jobs per s | median ms | p99 ms | longest wait, ms |")
    print("|---|---|---|---|---|---|")
    for callers in options.callers:
        for size in options.sizes:
            await _measure(options.url, size, callers, options.seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of an empty PostgreSQL database")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--callers", type=int, nargs="+", default=[8, 512])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each size")
    return parser.parse_args()


async def _measure(url: str, size: int, callers: int, seconds: float) -> None:
    config = DatabaseConfig(url=SecretStr(url), pool_size=size, busy_timeout_s=60)
    store = SqlJobStore(config)
    done: list[float] = []
    reads_ms: list[float] = []
    end = time.monotonic() + seconds
    await _job(store)  # opens a connection
    store.database.longest_wait_s()
    work = [asyncio.create_task(_call(store, end, done)) for _ in range(callers)]
    while time.monotonic() < end:
        begun = time.monotonic()
        await store.get(1)
        reads_ms.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(_PROBE_S)
    await asyncio.gather(*work)
    wait_ms = store.database.longest_wait_s() * 1000
    await store.close()
    p99_ms = statistics.quantiles(reads_ms, n=100)[-1]
    rate = len(done) / seconds
    median_ms = statistics.median(reads_ms)
    print(f"| {size} | {callers} | {rate:.0f} | {median_ms:.1f} | {p99_ms:.1f} | {wait_ms:.0f} |")


async def _call(store: SqlJobStore, end: float, done: list[float]) -> None:
    while time.monotonic() < end:
        await _job(store)
        done.append(time.monotonic())


async def _job(store: SqlJobStore) -> None:
    """Do what a job asks of the database, from its acceptance to its end."""
    await store.admit("open", 10**6)
    job = await store.add(_REQUEST, 10**6, lease=_LEASE)
    for _ in range(_POLLS):
        await store.get(job.id)
    await store.succeed(_LEASE.owner, job.id, _RESULT)


if __name__ == "__main__":
    asyncio.run(main())
