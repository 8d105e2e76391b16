"""`Registry`: what operators do with run-time entries, by command line or admin API."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models.catalogue import Catalogue
from serve_app.models.entry import AddOn, Entry, ModelEntry, anchored
from serve_app.models.inspect.match import check_match
from serve_app.models.protocol import ModelStore
from serve_app.models.weights.files import Refused
from serve_app.models.weights.told import with_told

__all__ = ["Judge", "Registry", "judge_files"]

Judge = Callable[[Entry, Mapping[str, ModelEntry]], Entry]  # raises Refused


def judge_files(config: CatalogueConfig, root_dir: Path) -> Judge:
    """Make a judge that looks at the headers of files, where they are on this machine.

    It returns the entry with what they tell.
    """

    def judge(entry: Entry, models: Mapping[str, ModelEntry]) -> Entry:
        here = anchored(entry, root_dir)
        try:
            if isinstance(here.source, Path) and here.source.exists():
                known = {name: anchored(model, root_dir) for name, model in models.items()}
                check_match(here, config, known)
        except OSError as exc:  # a name too long, a folder that may not be searched
            raise Refused(f"cannot be looked at: {exc.strerror}") from exc
        return with_told(entry, config, root_dir)

    return judge


class Registry:
    """Judges entries before they get into the store.

    Args:
        fixed: of the model files, which nobody changes at run time.
        has_pool: whether the deployment has replicas that models can share.
        judge: says what is wrong with the files of an entry, and fills in what they tell; none:
            they are not looked at.
    """

    def __init__(
        self, fixed: Catalogue, store: ModelStore, *, has_pool: bool, judge: Judge | None = None
    ) -> None:
        self._fixed = fixed
        self.store = store
        self.has_pool = has_pool
        self._judge = judge

    async def add(self, entry: Entry) -> None:
        """Add an entry, or replace the run-time entry of the same id.

        Raises:
            errors.InvalidRequest: the id is a model file's, an add-on is for a model that does not
                exist, there is no Pool for a model that wants one, or its files are something
                else than it says.
        """
        if entry.id in self._fixed:
            raise errors.InvalidRequest("id", f"The id {entry.id} is taken by a model file.")
        models = await self._models()
        if isinstance(entry, AddOn):
            if unknown := ", ".join(sorted(set(entry.models) - models.keys())):
                text = f"{entry.id} is for models that do not exist: {unknown}"
                raise errors.InvalidRequest("models", text)
        elif entry.placement == "pool" and not self.has_pool:
            text = "This deployment has no Pool; set pool.enabled and deploy it again."
            raise errors.InvalidRequest("placement", text)
        await self.store.put(await self.judge(entry))

    async def judge(self, entry: Entry) -> Entry:
        """Look at the files of an entry, where they are here; return it with what they tell.

        Raises:
            errors.InvalidRequest: they are something else than it says.
        """
        if self._judge is None:
            return entry
        try:
            return await asyncio.to_thread(self._judge, entry, await self._models())
        except Refused as exc:
            raise errors.InvalidRequest("source", f"{entry.id}: {exc}") from exc

    async def _models(self) -> dict[str, ModelEntry]:
        known = self._fixed.extended(await self.store.entries())
        return {model.id: model for model in known}

    async def remove(self, entry_id: str) -> None:
        """Remove a run-time entry. Jobs that were accepted with it may fail.

        Raises:
            errors.ModelNotFound: there is none of this id.
        """
        if not await self.store.remove(entry_id):
            raise errors.ModelNotFound(errors.echoed(entry_id))

    async def find_model(self, model_id: str) -> ModelEntry:
        """Look a model up, also among run-time entries; raises `errors.ModelNotFound`."""
        return self._fixed.extended(await self.store.entries()).get(model_id)

    async def is_exchangeable(self, model_id: str) -> bool:
        """Whether other weights serve as soon as the entry of a model is replaced."""
        if model_id in self._fixed:
            return False
        return (await self.find_model(model_id)).placement == "pool"

    async def entries(self) -> list[tuple[Entry, bool]]:
        """List all entries in order of id, each with whether it was added at run time."""
        fixed: list[Entry] = [*self._fixed, *self._fixed.add_ons]
        added = [(entry, True) for entry in await self.store.entries()]
        return sorted([(entry, False) for entry in fixed] + added, key=lambda pair: pair[0].id)
