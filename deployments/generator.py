"""Generator: one model on one device. A deployment per model of the catalogue."""

from deployments.metrics import Instruments
from deployments.stage import stage
from serve_app.config import CatalogueConfig, EngineConfig, LoggingConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.pipelines import load_painter
from serve_app.telemetry import logging, metrics
from serve_app.types import GenerationSpec, Pictures, PreparedImages

__all__ = ["Generator"]


class Generator:
    """Owns a painter: its weights, its engine thread, its health."""

    def __init__(
        self,
        entry: ModelEntry,
        served: Catalogue,
        engine: EngineConfig,
        catalogue: CatalogueConfig,
        logs: LoggingConfig,
    ) -> None:
        logging.configure(logs, model_id=entry.id)
        self._painter = load_painter(entry, engine, served.find_add_on, catalogue)
        self._instruments = Instruments(metrics.ENGINE)
        self._labels = {"model_id": entry.id}

    @stage
    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None
    ) -> Pictures:
        """Paint the samples of a job; cancelling the call frees its rows within a step."""
        return await self._painter.paint(job_id, spec, images)

    async def progress(self) -> dict[int, float]:
        """Share of steps done of each job at work on this replica."""
        return self._painter.progress()

    def check_health(self) -> None:
        """Raise when the engine is dead or stuck; Serve then replaces the replica.

        Called every few seconds, which is also how often the metrics are worth reporting.
        """
        self._painter.check_health()
        self._instruments.report(self._painter.snapshot(), self._labels)

    def __del__(self) -> None:
        if painter := getattr(self, "_painter", None):
            painter.close()
