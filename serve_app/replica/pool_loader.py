"""`PoolLoader`: the models of a Pool replica, as its cache takes them in and lets them go."""

import asyncio
from collections.abc import Callable

from serve_app.config import AppConfig
from serve_app.models import AddOn, AddOnType, Catalogue, ModelEntry
from serve_app.models.protocol import ModelStore
from serve_app.models.weights.footprint import weight_bytes
from serve_app.pipelines.host import HostCopies, HostSnapshot
from serve_app.replica.factory import painter_factory
from serve_app.replica.resident import Resident
from serve_app.replica.slot import run_and_forget
from serve_app.replica.status import ReplicaStatus
from serve_app.replica.weights import CatalogueWeights

__all__ = ["PoolLoader"]


class PoolLoader:
    """Implements `cache.Loader` by model id; a model follows `model_reload` while it is held.

    Args:
        catalogue: gives the catalogue of now.
        store: says which weights are wanted.
        replica_id: that reports.
        config: of catalogue, engines, reloads and the Pool.
    """

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        store: ModelStore,
        replica_id: str,
        config: AppConfig,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._replica_id = replica_id
        self._config = config
        self._factory = painter_factory(config.engine)
        self._host = HostCopies(config.pool.host_memory_bytes)
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._weights: dict[str, CatalogueWeights] = {}
        self._entries: dict[str, ModelEntry] = {}  # as they were when the models were loaded

    async def estimate_bytes(self, key: str) -> int:
        """Read it off the files; see the protocol."""
        entry = self._factory.settle(self._catalogue().revision(key))
        limit = self._config.catalogue.max_header_bytes
        size = await asyncio.to_thread(weight_bytes, entry, limit)
        return size or self._config.pool.assumed_bytes

    async def load(self, key: str) -> Resident:
        """Load the weights that are wanted and start the engine; see the protocol."""
        entry, config = self._catalogue().revision(key), self._config
        weights = CatalogueWeights(
            entry, self._find_add_on, config.catalogue, config.engine, self._host
        )
        replica_status = ReplicaStatus(
            key, self._replica_id, self._store, config.reload, has_revisions=entry.has_revisions
        )
        resident = Resident(key, replica_status, weights, config.reload)
        await resident.start()
        self._rounds[key] = asyncio.create_task(resident.run())
        self._weights[key], self._entries[key] = weights, entry
        return resident

    def outdated(self) -> list[str]:
        """Models here whose entries have changed or gone since they were loaded."""
        now = {entry.id: entry for entry in self._catalogue().revisions}
        return [key for key, entry in self._entries.items() if now.get(key) != entry]

    def host_snapshot(self) -> HostSnapshot:
        """Count the copies in CPU memory."""
        return self._host.snapshot()

    def _find_add_on(self, add_on_id: str, add_on_type: AddOnType) -> AddOn | None:
        return self._catalogue().find_add_on(add_on_id, add_on_type)

    def measure_bytes(self, item: Resident) -> int | None:
        """Ask the painter; see the protocol."""
        return item.weight_bytes() or None

    async def unload(self, key: str, item: Resident) -> None:
        """Stop the engine and the round that follows the store; see the protocol."""
        del self._entries[key]
        self._rounds.pop(key).cancel()
        await asyncio.to_thread(run_and_forget, [item.close])

    async def tidy(self, key: str) -> None:
        """Collect garbage, on the device too; see the protocol."""
        await asyncio.to_thread(self._weights.pop(key).tidy)
