"""Pool: replicas that share their memory among the models that have no deployment of their own."""

import dataclasses
import time
from collections import ChainMap
from collections.abc import Mapping

from ray import serve

from deployments.background import Rounds
from deployments.metrics import Instruments
from deployments.stage import stage
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.models import SqlModelStore
from serve_app.fairness import PLAIN, Stake
from serve_app.models import Catalogue, CatalogueView
from serve_app.pipelines.specs import named_add_ons
from serve_app.replica.cache import ModelCache
from serve_app.replica.pool_loader import PoolLoader
from serve_app.telemetry import logging, metrics
from serve_app.types import GenerationSpec, Pictures, PreparedImages, Sight

__all__ = ["Pool"]


class Pool:
    """Owns a cache of models; see `serve_app.replica.cache`."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, config: AppConfig, catalogue: Catalogue
    ) -> None:
        logging.configure(config.logging)
        self._jobs = await open_job_store(config.database)
        store = SqlModelStore(self._jobs.database)
        self._view = CatalogueView(catalogue, store, config.root_dir)
        self._rounds = Rounds(self._view.run(config.catalogue.refresh_s))
        self._replica_id: str = serve.get_replica_context().replica_id.unique_id
        self._loader = PoolLoader(lambda: self._view.now, store, self._replica_id, config)
        self._cache = ModelCache(self._loader, config.pool)
        self._pool_instruments = Instruments(metrics.POOL)
        self._host_instruments = Instruments(metrics.HOST)
        self._engine_instruments = Instruments(metrics.ENGINE)
        self._refused = Instruments((metrics.RELOAD_FAILURES,))  # levels would outlast the models

    @stage
    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None, stake: Stake = PLAIN
    ) -> Pictures:
        """Paint the samples of a job as soon as its model is in memory."""
        catalogue = await self._view.knowing(spec.model_id, *named_add_ons(spec))
        entry = catalogue.revision(spec.model_id, spec.kind)
        began = time.monotonic()
        async with self._cache.use(entry.id) as resident:
            load_s = time.monotonic() - began
            pictures = await resident.paint(job_id, spec, images, stake)
        return dataclasses.replace(pictures, load_s=load_s)

    @stage
    async def prefetch(self, spec: GenerationSpec) -> None:
        """Load the add-ons of a job that is waiting for its pictures, if its model is here."""
        catalogue = await self._view.knowing(spec.model_id, *named_add_ons(spec))
        resident = self._cache.items().get(catalogue.revision(spec.model_id).id)
        if resident is not None:
            resident.prefetch(spec)

    async def progress(self) -> dict[int, float]:
        """Share of steps done of each job at work on this replica."""
        jobs: dict[int, float] = {}
        for resident in self._cache.items().values():
            jobs |= resident.progress()
        return jobs

    async def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far those of these jobs are that are at work here; see the painter's protocol."""
        sights = [resident.look(watched) for resident in self._cache.items().values()]
        return dict(ChainMap(*sights))

    async def notify(self, model_id: str) -> str | None:
        """Reconcile the weights of a model that is here; return this replica's id, else None."""
        resident = self._cache.items().get(model_id)
        if resident is None:
            return None
        resident.notify()
        return self._replica_id

    @stage
    async def preload(self, model_id: str) -> None:
        """Load a model for those who ask for it next."""
        (await self._view.knowing(model_id)).revision(model_id)
        async with self._cache.use(model_id):
            pass

    async def load_s(self, model_id: str) -> float:
        """Seconds until this replica has the model in memory, were it asked for now."""
        return await self._cache.load_s(model_id)

    async def record_routing_stats(self) -> dict[str, object]:
        """Report to routers what is here; called by Serve every `pool.stats_period_s`."""
        return dataclasses.asdict(self._cache.occupancy())

    async def check_health(self) -> None:
        """Raise when an engine is dead or stuck; Serve then replaces the replica."""
        self._rounds.check_health()
        residents = self._cache.items()
        for resident in residents.values():
            resident.check_health()
        for model_id in self._loader.outdated():
            self._cache.retire(model_id)
        self._pool_instruments.report(self._cache.snapshot(), {})
        self._host_instruments.report(self._loader.host_snapshot(), {})
        for model_id, resident in residents.items():
            self._engine_instruments.report(resident.snapshot(), {"model_id": model_id})
            self._refused.report(resident.state(), {"model_id": model_id})

    async def __del__(self) -> None:
        await self._rounds.close()
        await self._cache.close()
        await self._jobs.close()
