"""`Catalogue`: the model entries of a configuration and what requests may add to them, by id."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Self

import structlog
from pydantic import ValidationError

from serve_app import errors
from serve_app.config import CatalogueConfig, PoolConfig
from serve_app.config.serve_file import read_yaml
from serve_app.models.canary import Canary
from serve_app.models.entry import AddOn, AddOnType, Entry, ModelEntry, anchored, read_entry
from serve_app.models.problem import problems
from serve_app.models.revision import asked_id, canary_id
from serve_app.models.weights.told import with_told
from serve_app.types import ControlType, Kind

__all__ = ["Catalogue", "CatalogueError"]

_log = structlog.get_logger()


class CatalogueError(ValueError):
    """The operator's model files are wrong; raised before anything is deployed."""


class Catalogue:
    """Immutable mapping of model id to entry, with the add-ons that fit them.

    An id names one thing only, be it a model or an add-on.
    """

    def __init__(
        self,
        entries: Iterable[ModelEntry],
        add_ons: Iterable[AddOn] = (),
        canaries: Iterable[Canary] = (),
    ) -> None:
        self._entries: dict[str, ModelEntry] = {}
        for entry in entries:
            if entry.id in self._entries:
                raise CatalogueError(f"two models have the id {entry.id!r}")
            self._entries[entry.id] = entry
        self._add_ons: dict[str, AddOn] = {}
        for add_on in add_ons:
            if add_on.id in self._entries or add_on.id in self._add_ons:
                raise CatalogueError(f"two entries have the id {add_on.id!r}")
            unknown = set(add_on.models) - set(self._entries)
            if unknown:
                names = ", ".join(sorted(unknown))
                raise CatalogueError(f"{add_on.id} is for models that do not exist: {names}")
            self._add_ons[add_on.id] = add_on
        known = (canary for canary in canaries if canary.entry.id in self._entries)
        self._canaries = {canary_id(canary.entry.id): canary for canary in known}
        self._nets: dict[ControlType, list[AddOn]] = defaultdict(list)
        for add_on in self._add_ons.values():
            for control in add_on.control:
                self._nets[control].append(add_on)

    @classmethod
    def load(cls, config: CatalogueConfig, root_dir: Path) -> Self:
        """Read the files that the configuration names; a file with a `type` is an add-on.

        Where only some models are served, so are only the add-ons that fit one of them.

        Raises:
            CatalogueError: no folder, no such id, equal ids, an add-on for an unknown model, or a
                file that is no entry.
        """
        files = sorted(config.path.glob("*.yaml"))
        if not files:
            raise CatalogueError(f"no model files in {config.path}")
        found = [with_told(_read(file, root_dir), config, root_dir) for file in files]
        entries = [item for item in found if isinstance(item, ModelEntry)]
        add_ons = [item for item in found if isinstance(item, AddOn)]
        everything = cls(entries, add_ons)
        if config.models is None:
            return everything
        missing = set(config.models) - {entry.id for entry in entries}
        if missing:
            raise CatalogueError(f"no model file has the id {', '.join(sorted(missing))}")
        return cls(
            (everything._entries[model_id] for model_id in config.models),
            (kept for item in add_ons if (kept := _restrict(item, config.models))),
        )

    def extended(self, added: Iterable[Entry], canaries: Iterable[Canary] = ()) -> "Catalogue":
        """Add what was added at run time. What does not fit is left out: the rest still serves."""
        added = [entry for entry in added if not self._is_taken(entry.id)]
        models = [entry for entry in added if isinstance(entry, ModelEntry)]
        served = tuple(entry.id for entry in [*self, *models])
        fitting = [_restrict(item, served) for item in added if isinstance(item, AddOn)]
        add_ons = [item for item in fitting if item is not None]
        return Catalogue([*self, *models], [*self.add_ons, *add_ons], canaries)

    def _is_taken(self, entry_id: str) -> bool:
        if entry_id in self:
            _log.warning("entry_shadowed", entry_id=entry_id)  # a model file has the id by now
        return entry_id in self

    def __contains__(self, entry_id: object) -> bool:
        return any(entry_id in ids for ids in (self._entries, self._add_ons, self._canaries))

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def has_pool(self, config: PoolConfig) -> bool:
        """Whether a deployment of these models has replicas that models share."""
        return config.enabled or any(entry.placement == "pool" for entry in self)

    @property
    def add_ons(self) -> tuple[AddOn, ...]:
        """All LoRAs, VAEs, embeddings, IP adapters and ControlNets."""
        return tuple(self._add_ons.values())

    def get(self, model_id: str) -> ModelEntry:
        """Look up a model.

        Raises:
            errors.ModelNotFound: no such model.
        """
        entry = self._entries.get(model_id)
        if entry is None:
            raise errors.ModelNotFound(errors.echoed(model_id))
        return entry

    def draw(self, model_id: str, chance: float) -> str:
        """Return which revision of a model a new job goes to, by the id that it has inside.

        chance: 0 to 1, any with the same probability.
        """
        canary = self._canaries.get(canary_id(model_id))
        return canary_id(model_id) if canary and 100.0 * chance < canary.share else model_id

    def revision(self, model_id: str, kind: Kind | None = None) -> ModelEntry:
        """Look up what paints a job, by an id that `draw` gave; without its canary the model does.

        Raises:
            errors.ModelNotFound: no such model.
            errors.NotServed: the model does not do this kind.
        """
        canary, asked = self._canaries.get(model_id), asked_id(model_id)
        entry = self.get(asked) if kind is None else self.find(asked, kind)
        return entry if canary is None else canary.painted

    @property
    def revisions(self) -> tuple[ModelEntry, ...]:
        """All models, and their canaries by the ids that these have inside."""
        return (*self, *(canary.painted for canary in self._canaries.values()))

    def find(self, model_id: str, kind: Kind) -> ModelEntry:
        """Look up a model that answers this kind of call.

        Raises:
            errors.ModelNotFound: no such model.
            errors.NotServed: the model does not do this kind.
        """
        entry = self.get(model_id)
        if kind not in entry.kinds:
            raise errors.NotServed(f"The model {entry.id} does not serve {kind.value}")
        return entry

    def find_add_on(self, add_on_id: str, add_on_type: AddOnType) -> AddOn | None:
        """Look up an add-on of this type; None when there is none. It need not fit any model."""
        add_on = self._add_ons.get(add_on_id)
        return add_on if add_on is not None and add_on.type == add_on_type else None

    def find_controlnet(self, control: ControlType, model_id: str) -> AddOn | None:
        """Return the first ControlNet for this model that takes hints of the type."""
        nets = self._nets.get(control, ())
        return next((net for net in nets if net.fits(model_id)), None)


def _read(file: Path, root_dir: Path) -> Entry:
    try:
        values = read_yaml(file)
    except (OSError, ValueError) as exc:
        raise CatalogueError(str(exc)) from exc
    try:
        entry = read_entry(values)
    except ValidationError as exc:
        found = "; ".join(chain.from_iterable(problems(exc, values).values()))
        raise CatalogueError(f"{file.name}: {found}") from exc
    return anchored(entry, root_dir)


def _restrict(add_on: AddOn, served: tuple[str, ...]) -> AddOn | None:
    """Leave out the models that are not served; None when it was for those only."""
    if not add_on.models:
        return add_on
    models = tuple(model_id for model_id in add_on.models if model_id in served)
    return add_on.model_copy(update={"models": models}) if models else None
