"""`CatalogueView`: the catalogue now, the model files together with what was added at run time.

A catalogue never changes; the view exchanges it when the store's version has grown. It looks every
few seconds, and at once when somebody asks for an id that it does not know. While the store does
not answer, the last catalogue stays.
"""

import asyncio
import contextlib
from pathlib import Path

from serve_app import errors
from serve_app.models.catalogue import Catalogue
from serve_app.models.entry import AddOn, AddOnType, anchored
from serve_app.models.protocol import ModelStore

__all__ = ["CatalogueView"]


class CatalogueView:
    """One per process that looks entries up.

    Args:
        fixed: of the model files; its ids win over equal ones of the store.
        store: of the run-time entries.
        root_dir: what relative paths of theirs start from.
    """

    def __init__(self, fixed: Catalogue, store: ModelStore, root_dir: Path) -> None:
        self._fixed = fixed
        self._store = store
        self._root_dir = root_dir
        self._version = 0
        self._lock = asyncio.Lock()
        self._now = fixed

    @property
    def now(self) -> Catalogue:
        """The catalogue as last seen."""
        return self._now

    @property
    def fixed(self) -> Catalogue:
        """What the model files say."""
        return self._fixed

    def find_add_on(self, add_on_id: str, add_on_type: AddOnType) -> AddOn | None:
        """Look up an add-on as last seen; see `Catalogue.find_add_on`. From any thread."""
        return self._now.find_add_on(add_on_id, add_on_type)

    async def knowing(self, *ids: str) -> Catalogue:
        """Return the catalogue, refreshed if it does not know one of these ids."""
        if not all(entry_id in self._now for entry_id in ids):
            with contextlib.suppress(errors.JobStoreUnavailable):
                await self.refresh()
        return self._now

    async def refresh(self) -> None:
        """Take up what has changed.

        Raises:
            errors.JobStoreUnavailable: the store does not answer; nothing has changed here.
        """
        async with self._lock:  # or an old look might end after a newer one
            version = await self._store.version()  # first: later changes are seen next time
            if version != self._version:
                added = [anchored(entry, self._root_dir) for entry in await self._store.entries()]
                canaries = [
                    canary.model_copy(update={"entry": anchored(canary.entry, self._root_dir)})
                    for canary in await self._store.canaries()
                ]
                self._now = self._fixed.extended(added, canaries)
                self._version = version

    async def run(self, period_s: float) -> None:
        """Refresh until cancelled."""
        while True:
            with contextlib.suppress(errors.JobStoreUnavailable):
                await self.refresh()
            await asyncio.sleep(period_s)
