"""BentoML: one worker; `bentoml serve` finds `Painter` here.

Adaptive batching where batches are allowed. An endpoint that batches takes and gives lists over
HTTP; each client sends a list of one.
"""

import bentoml  # type: ignore[import-not-found,unused-ignore]

from benchmarks.http.peers.stock import MAX_BATCH, Ask, StockModel

__all__ = ["Painter"]


@bentoml.service(
    workers=1,
    traffic={"timeout": 600},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Painter:
    """One worker with the model."""

    def __init__(self) -> None:
        self._model = StockModel()

    @bentoml.api(  # type: ignore[untyped-decorator,unused-ignore]
        batchable=MAX_BATCH > 1, max_batch_size=max(2, MAX_BATCH), max_latency_ms=600_000
    )
    def paint(self, asks: list[Ask]) -> list[str]:
        """Paint one batch."""
        return self._model.paint(asks)
