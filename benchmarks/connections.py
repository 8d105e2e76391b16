"""How many database connections a process needs: `python -m benchmarks.connections URL`.

So many calls are in flight, on an empty PostgreSQL, through pools of several sizes: each accepts a
job, looks at it while it is held, settles it and begins anew. Beside them a reader comes now and
then, whose times are what a client feels that polls.
"""

import argparse
import asyncio
import random
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
    print("| connections | calls | accepted per s | read, median ms | p99 ms | longest wait, ms |")
    print("|---|---|---|---|---|---|")
    for size in options.sizes:
        await _measure(options, size)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of an empty PostgreSQL database")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--calls", type=int, default=512, help="in flight")
    parser.add_argument("--hold", type=float, default=10.0, help="seconds that a call lasts")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size")
    return parser.parse_args()


async def _measure(options: argparse.Namespace, size: int) -> None:
    url = SecretStr(options.url)
    store = SqlJobStore(DatabaseConfig(url=url, pool_size=size, busy_timeout_s=60))
    accepted: list[float] = []
    reads_ms: list[float] = []
    await asyncio.gather(*(store.get(1) for _ in range(size)))  # opens the connections
    store.database.longest_wait_s()
    begun = time.monotonic()
    work = [
        asyncio.create_task(_calls(store, options.hold, accepted)) for _ in range(options.calls)
    ]
    while time.monotonic() < begun + options.seconds:
        asked = time.monotonic()
        await store.get(1)
        reads_ms.append((time.monotonic() - asked) * 1000)
        await asyncio.sleep(_PROBE_S)
    rate = len(accepted) / (time.monotonic() - begun)
    wait_ms = store.database.longest_wait_s() * 1000
    for call in work:
        call.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await store.close()
    median_ms, p99_ms = statistics.median(reads_ms), statistics.quantiles(reads_ms, n=100)[-1]
    figures = f"{rate:.0f} | {median_ms:.1f} | {p99_ms:.1f} | {wait_ms:.0f}"
    print(f"| {size} | {options.calls} | {figures} |")


async def _calls(store: SqlJobStore, hold_s: float, accepted: list[float]) -> None:
    """Make calls one after the other, from a moment of their own on."""
    await asyncio.sleep(random.uniform(0, hold_s))
    while True:
        await store.admit("open", 10**6)
        job = await store.add(_REQUEST, 10**6, lease=_LEASE)
        accepted.append(time.monotonic())
        for _ in range(_POLLS):
            await asyncio.sleep(hold_s / _POLLS)
            await store.get(job.id)
        await store.succeed(_LEASE.owner, job.id, _RESULT)


if __name__ == "__main__":
    asyncio.run(main())
