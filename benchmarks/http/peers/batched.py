"""Ray Serve with `@serve.batch`: up to 8 requests, collected for up to 50 ms.

The batch is painted in a thread, so that the replica goes on taking requests. Ray Serve has no
batching key: requests of unequal settings in one batch run one after another.
"""

import asyncio
import os
import signal

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.http.peers.stock import MAX_BATCH, MAX_WAIT_S, Ask, StockModel

__all__ = ["Painter"]

_OPTIONS = {
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 1},
    "graceful_shutdown_timeout_s": 1,
}


class Painter:
    """One replica with the model."""

    def __init__(self) -> None:
        self._model = StockModel()

    async def __call__(self, request: Request) -> dict[str, str]:
        """Answer a POST; a GET asks whether the model is there."""
        if request.method == "GET":
            return {}
        ask = Ask.model_validate(await request.json())
        return {"image": await self.paint(ask)}

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT_S)  # type: ignore[untyped-decorator]
    async def paint(self, asks: list[Ask]) -> list[str]:
        """Paint one batch."""
        return await asyncio.to_thread(self._model.paint, asks)


def main() -> None:
    """Serve until the process is asked to stop."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    options = {"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])}
    serve.start(http_options=options, logging_config={"enable_access_log": False})
    serve.run(serve.deployment(Painter).options(**_OPTIONS).bind(), route_prefix="/")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
