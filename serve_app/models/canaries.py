"""`Canaries`: tries another revision of a model on a share of its calls, for operators."""

from serve_app import errors
from serve_app.models.canary import WEIGHTS, Canary, Scores
from serve_app.models.entry import Entry, ModelEntry
from serve_app.models.registry import Registry

__all__ = ["Canaries"]


class Canaries:
    """What the command line and the admin API do with canaries.

    registry: judges entries, and knows which can be replaced at run time.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def begin(self, entry: Entry, share: float) -> None:
        """Send a share of a model's calls, in per cent, to another entry of its id.

        Raises:
            errors.ModelNotFound: no model has the id.
            errors.InvalidRequest: there is no Pool to paint it, it differs in more than weights, or
                its files are something else than it says.
        """
        if not isinstance(entry, ModelEntry):
            raise errors.InvalidRequest("id", "Only a model can have a canary, not an add-on.")
        if not self._registry.has_pool:
            text = "Canaries are painted by the Pool; set pool.enabled and deploy it again."
            raise errors.InvalidRequest("placement", text)
        known = await self._registry.find_model(entry.id)
        if others := ", ".join(sorted(_differing(known, entry) - WEIGHTS)):
            text = f"A canary may differ in its weights; this one does in {others}."
            raise errors.InvalidRequest("id", text)
        judged = await self._registry.judge(entry)
        assert isinstance(judged, ModelEntry), "a judge fills fields in"
        await self._registry.store.begin_canary(judged, share)

    async def share(self, model_id: str, share: float) -> None:
        """Change the share of a canary; raises `errors.InvalidRequest` when there is none."""
        if not await self._registry.store.share_canary(model_id, share):
            raise _none(model_id)

    async def promote(self, model_id: str) -> None:
        """Put a canary in place of the model's entry; its open jobs go on, by the model.

        Raises:
            errors.InvalidRequest: there is none, or the model's entry cannot be replaced at run
                time, for a model file has it or it has a deployment of its own.
        """
        if not await self._registry.is_exchangeable(model_id):
            text = (
                f"{model_id} comes from a model file or has a deployment of its own. "
                "Write the new weights there, deploy it, then roll the canary back; until then its "
                "share can be 100."
            )
            raise errors.InvalidRequest("id", text)
        if not await self._registry.store.promote_canary(model_id):
            raise _none(model_id)

    async def roll_back(self, model_id: str) -> None:
        """Remove a canary, whose open jobs go to the model; raises as `share`."""
        if not await self._registry.store.end_canary(model_id):
            raise _none(model_id)

    async def find(self, model_id: str) -> tuple[Canary, Scores]:
        """Return a canary, and how it and the model fare since it began; raises as `share`."""
        for canary in await self._registry.store.canaries():
            if canary.entry.id == model_id:
                return canary, await self._registry.store.scores(model_id, canary.since)
        raise _none(model_id)


def _differing(known: ModelEntry, entry: ModelEntry) -> set[str]:
    fields = type(entry).model_fields
    return {name for name in fields if getattr(known, name) != getattr(entry, name)}


def _none(model_id: str) -> errors.InvalidRequest:
    return errors.InvalidRequest("id", f"The model {errors.echoed(model_id)} has no canary.")
