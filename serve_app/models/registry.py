"""`Registry`: what operators do with run-time entries, by command line or admin API."""

from serve_app import errors
from serve_app.models.catalogue import Catalogue
from serve_app.models.entry import AddOn, Entry, ModelEntry
from serve_app.models.protocol import ModelStore

__all__ = ["Registry"]


class Registry:
    """Judges entries before they get into the store.

    Args:
        fixed: of the model files, which nobody changes at run time.
        has_pool: whether the deployment has replicas that models can share.
    """

    def __init__(self, fixed: Catalogue, store: ModelStore, *, has_pool: bool) -> None:
        self._fixed = fixed
        self._store = store
        self._has_pool = has_pool

    async def add(self, entry: Entry) -> None:
        """Add an entry, or replace the run-time entry of the same id.

        Raises:
            errors.InvalidRequest: the id is a model file's, an add-on is for a model that does not
                exist, or there is no Pool for a model that wants one.
        """
        if entry.id in self._fixed:
            raise errors.InvalidRequest("id", f"The id {entry.id} is taken by a model file.")
        if isinstance(entry, AddOn):
            known = self._fixed.extended(await self._store.entries())
            models = {model.id for model in known}
            if unknown := ", ".join(sorted(set(entry.models) - models)):
                text = f"{entry.id} is for models that do not exist: {unknown}"
                raise errors.InvalidRequest("models", text)
        elif entry.placement == "pool" and not self._has_pool:
            text = "This deployment has no Pool; set pool.enabled and deploy it again."
            raise errors.InvalidRequest("placement", text)
        await self._store.put(entry)

    async def remove(self, entry_id: str) -> None:
        """Remove a run-time entry. Jobs that were accepted with it may fail.

        Raises:
            errors.ModelNotFound: there is none of this id.
        """
        if not await self._store.remove(entry_id):
            raise errors.ModelNotFound(errors.echoed(entry_id))

    async def find_model(self, model_id: str) -> ModelEntry:
        """Look a model up, also among run-time entries; raises `errors.ModelNotFound`."""
        return self._fixed.extended(await self._store.entries()).get(model_id)

    async def entries(self) -> list[tuple[Entry, bool]]:
        """List all entries in order of id, each with whether it was added at run time."""
        fixed: list[Entry] = [*self._fixed, *self._fixed.add_ons]
        added = [(entry, True) for entry in await self._store.entries()]
        return sorted([(entry, False) for entry in fixed] + added, key=lambda pair: pair[0].id)
