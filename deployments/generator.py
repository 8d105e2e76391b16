"""Generator: one model on one device. A deployment per model of the catalogue."""

import asyncio
import time
from collections.abc import Mapping

from ray import serve

from deployments.background import Rounds
from deployments.metrics import Instruments
from deployments.stage import stage
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.models import SqlModelStore
from serve_app.fairness import PLAIN, Stake
from serve_app.models import Catalogue, CatalogueView, ModelEntry
from serve_app.models.workload import Pace, Workload
from serve_app.pipelines.specs import named_add_ons
from serve_app.replica.resident import Resident
from serve_app.replica.status import ReplicaStatus
from serve_app.replica.weights import CatalogueWeights
from serve_app.telemetry import logging, metrics
from serve_app.types import GenerationSpec, Pictures, PreparedImages, Sight

__all__ = ["Generator"]


class Generator:
    """Hosts a resident: the weights that are wanted, their engine, their health."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, entry: ModelEntry, catalogue: Catalogue, config: AppConfig
    ) -> None:
        logging.configure(config.logging, model_id=entry.id)
        self._jobs = await open_job_store(config.database)
        store = SqlModelStore(self._jobs.database)
        self._view = CatalogueView(catalogue, store, config.root_dir)
        find = self._view.find_add_on
        self._replica_id: str = serve.get_replica_context().replica_id.unique_id
        replica_status = ReplicaStatus(
            entry.id, self._replica_id, store, config.reload, has_revisions=entry.has_revisions
        )
        weights = CatalogueWeights(entry, find, config.catalogue, config.engine)
        self._resident = Resident(entry.id, replica_status, weights, config.reload)
        self._rounds = Rounds()
        try:
            await self._resident.start()
        except BaseException:  # Serve calls no destructor then
            await self._close()
            raise
        self._rounds = Rounds(self._view.run(config.catalogue.refresh_s), self._resident.run())
        self._engine_instruments = Instruments(metrics.ENGINE)
        self._reload_instruments = Instruments(metrics.RELOAD)
        self._labels = {"model_id": entry.id}
        self._workload = Workload()

    @stage
    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None, stake: Stake = PLAIN
    ) -> Pictures:
        """Paint the samples of a job; cancelling the call frees its rows within a step."""
        await self._view.knowing(*named_add_ons(spec))
        with self._workload.job(job_id, spec):
            return await self._resident.paint(job_id, spec, images, stake)

    @stage
    async def prefetch(self, spec: GenerationSpec) -> None:
        """Load the add-ons of a job that is waiting for its pictures; returns before they are."""
        await self._view.knowing(*named_add_ons(spec))
        self._resident.prefetch(spec)

    async def progress(self) -> dict[int, float]:
        """Share of steps done of each job at work on this replica."""
        return self._resident.progress()

    async def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far those of these jobs are that are at work here; see the painter's protocol."""
        return self._resident.look(watched)

    async def notify(self, _model_id: str) -> str:
        """Reconcile with what is wanted, in the background; return the id of this replica."""
        self._resident.notify()
        return self._replica_id

    async def reconfigure(self, user_config: object) -> None:
        """Reload as `model_reload` does when a deploy says something else than the one before.

        Must not raise: Serve would stop the replica and its good weights.
        """
        self._resident.request(user_config)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Report the open work to the scaling policy (`deployments.scaling`); called by Serve."""
        counted = self._resident.snapshot()
        pace = Pace(counted.tick_s, counted.row_cap, counted.forward_s)
        return self._workload.stats(self._resident.progress(), pace, time.monotonic())

    async def check_health(self) -> None:
        """Raise when the engine is dead or stuck or a round has ended; Serve replaces the replica.

        Called every few seconds, which is also how often the metrics are worth reporting.
        """
        self._resident.check_health()
        self._rounds.check_health()
        self._engine_instruments.report(self._resident.snapshot(), self._labels)
        self._reload_instruments.report(self._resident.state(), self._labels)

    async def __del__(self) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._rounds.close()
        await asyncio.to_thread(self._resident.close)
        await self._jobs.close()
