"""Generator: one model on one device. A deployment per model of the catalogue."""

import asyncio
import time

from deployments.metrics import Instruments
from deployments.stage import stage
from serve_app.config import AppConfig
from serve_app.jobs import open_job_store
from serve_app.jobs.models import SqlModelStore
from serve_app.models import Catalogue, CatalogueView, ModelEntry
from serve_app.models.workload import Pace, Workload
from serve_app.pipelines import load_painter
from serve_app.pipelines.specs import named_add_ons
from serve_app.telemetry import logging, metrics
from serve_app.types import GenerationSpec, Pictures, PreparedImages

__all__ = ["Generator"]


class Generator:
    """Owns a painter: its weights, its engine thread, its health."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, entry: ModelEntry, catalogue: Catalogue, config: AppConfig
    ) -> None:
        logging.configure(config.logging, model_id=entry.id)
        self._jobs = await open_job_store(config.database)
        store = SqlModelStore(self._jobs.database)
        self._view = CatalogueView(catalogue, store, config.root_dir)
        self._refresh = asyncio.create_task(self._view.run(config.catalogue.refresh_s))
        find = self._view.find_add_on
        self._painter = await asyncio.to_thread(
            load_painter, entry, config.engine, find, config.catalogue
        )
        self._instruments = Instruments(metrics.ENGINE)
        self._labels = {"model_id": entry.id}
        self._workload = Workload()

    @stage
    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None
    ) -> Pictures:
        """Paint the samples of a job; cancelling the call frees its rows within a step."""
        await self._view.knowing(*named_add_ons(spec))
        with self._workload.job(job_id, spec):
            return await self._painter.paint(job_id, spec, images)

    async def progress(self) -> dict[int, float]:
        """Share of steps done of each job at work on this replica."""
        return self._painter.progress()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell the scaling policy what there is to do; asked by Serve (`deployments.scaling`)."""
        counted = self._painter.snapshot()
        pace = Pace(counted.tick_s, counted.row_cap, counted.forward_s)
        return self._workload.stats(self._painter.progress(), pace, time.monotonic())

    async def check_health(self) -> None:
        """Raise when the engine is dead or stuck; Serve then replaces the replica.

        Called every few seconds, which is also how often the metrics are worth reporting.
        """
        self._painter.check_health()
        self._instruments.report(self._painter.snapshot(), self._labels)

    async def __del__(self) -> None:
        self._refresh.cancel()
        if painter := getattr(self, "_painter", None):
            await asyncio.to_thread(painter.close)
        await self._jobs.close()
