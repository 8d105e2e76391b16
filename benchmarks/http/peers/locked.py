"""FastAPI with a lock around the pipeline: what most people write first.

The event loop takes requests while one worker thread paints; the lock is fair, first come first
served.
"""

import asyncio
import os

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from benchmarks.http.peers.stock import Ask, StockModel

__all__ = ["create"]


def create() -> FastAPI:
    """Load the model and make the app."""
    model = StockModel()
    lock = asyncio.Lock()
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> bool:
        return True

    @app.post("/paint")
    async def paint(ask: Ask) -> dict[str, str]:
        async with lock:
            [image] = await run_in_threadpool(model.paint, [ask])
        return {"image": image}

    return app


if __name__ == "__main__":
    uvicorn.run(create(), port=int(os.environ["BENCH_PORT"]), access_log=False)
