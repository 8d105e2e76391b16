"""`scan`: what is in a folder of downloads, and an entry for each file that can be served.

Reads headers only; blocks. What is wrong with one file is its row's reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from serve_app.config import CatalogueConfig
from serve_app.models.entry import AddOn, Entry, ModelEntry, read_entry
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.inspection import Family, Inspection
from serve_app.models.inspect.match import check_found, families_of
from serve_app.models.scan.memory import Memory
from serve_app.models.scan.naming import id_of, title_of
from serve_app.models.scan.twins import find_twins
from serve_app.models.scan.values import ScanDefaults, values_of
from serve_app.models.scan.walk import walk
from serve_app.models.weights.files import Refused, list_files
from serve_app.models.weights.settings import base_of, training_of

__all__ = ["Row", "Verdict", "scan"]

Watch = Callable[[Sequence[Path]], Iterable[Path]]  # shows progress, or does nothing


class Verdict(StrEnum):
    """What becomes of a file."""

    NEW = "new"
    SAME = "same"  # an entry from an earlier scan has it
    CHANGED = "changed"  # other contents under the same name
    WIDER = "wider"  # an add-on that fits other models than before, since models came or went
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Row:
    """One file. found: None when nothing can be said of it. entry: of those not refused.

    The entry of what has changed is the one that it has, whoever wrote it.
    """

    path: Path
    verdict: Verdict
    reason: str = ""
    found: Inspection | None = None
    entry: Entry | None = None


def scan(
    folder: Path,
    known: Mapping[str, Entry],
    memory: Memory,
    config: CatalogueConfig,
    *,
    defaults: ScanDefaults = ScanDefaults(),  # noqa: B008  # frozen
    watch: Watch = lambda paths: paths,
) -> list[Row]:
    """Look at every file of a folder.

    Args:
        known: entries of the catalogue by id, with paths of this machine.
        memory: of earlier scans.
        defaults: of the models that are found.
        watch: goes over the files one by one.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = folder.resolve()
    looked = [_look(folder, path, config) for path in watch(list(walk(folder)))]
    judge = _Judge(known, memory, config, defaults)
    judged: dict[Path, Row] = {}
    # Add-ons are for models, so these come first.
    for row in sorted(_without_twins(looked, known), key=lambda row: not _is_model(row)):
        judged[row.path] = judge.judge(row)
    gone = (Row(path, Verdict.GONE, f"was {seen.entry_id}") for path, seen in memory.gone(folder))
    return [*(judged[row.path] for row in looked), *gone]


def _is_model(row: Row) -> bool:
    return row.found is not None and row.found.type.is_model


def _look(folder: Path, path: Path, config: CatalogueConfig) -> Row:
    try:
        if path.is_symlink() and path.is_dir():
            raise Refused("is a link to a folder, which is not followed; scan that folder")
        if not path.resolve().is_relative_to(folder):
            raise Refused("is a link that leads out of the folder")
        list_files(path, folder, allow_pickle=True)  # pickles have a reason of their own
        return Row(path, Verdict.NEW, found=inspect(path, config))
    except (Refused, OSError, RuntimeError) as exc:  # the last of a link to itself
        return Row(path, Verdict.REFUSED, str(exc))


def _without_twins(looked: Sequence[Row], known: Mapping[str, Entry]) -> list[Row]:
    """Refuse files whose contents another has: one that is served already, or an earlier one."""
    served = {entry.source for entry in known.values()}
    files = [row.path for row in looked if row.found is not None and row.path.is_file()]
    twins = find_twins(sorted(files, key=lambda file: file not in served))
    return [
        replace(
            row,
            verdict=Verdict.REFUSED,
            reason=f"has the contents of {twins[row.path].name}",
            found=None,
        )
        if row.path in twins
        else row
        for row in looked
    ]


class _Judge:
    """Makes entries, one after another: ids that are taken and models that are there add up."""

    def __init__(
        self,
        known: Mapping[str, Entry],
        memory: Memory,
        config: CatalogueConfig,
        defaults: ScanDefaults,
    ) -> None:
        self._known = known
        self._memory = memory
        self._config = config
        self._defaults = defaults
        self._taken: dict[str, Path | None] = {
            entry.id: entry.source if isinstance(entry.source, Path) else None
            for entry in known.values()
        }
        served = (entry for entry in known.values() if isinstance(entry, ModelEntry))
        self._models: dict[str, Sequence[Family]] = {
            entry.id: _families_of(entry, config) for entry in served
        }

    def judge(self, row: Row) -> Row:
        """Return a row with its entry, or with the reason why there is none."""
        if row.found is None:
            return row
        try:
            entry = self._entry(row.path, row.found)
            check_found(entry, row.found, self._config)  # what a replica would refuse when it loads
            list_files(row.path, allow_pickle=self._config.allow_pickle)
            if isinstance(entry, ModelEntry) and row.path.is_file():
                training_of(entry, row.found)
                base_of(entry, row.found)
            judged = self._compared(replace(row, entry=entry))
        except (Refused, ValidationError, OSError) as exc:
            return replace(row, verdict=Verdict.REFUSED, reason=str(exc))
        self._taken[entry.id] = row.path
        if isinstance(entry, ModelEntry):
            self._models[entry.id] = row.found.families
        return judged

    def _entry(self, path: Path, found: Inspection) -> Entry:
        entry_id = id_of(title_of(path))
        if entry_id is None:
            raise Refused("no id can be made of its name; rename it")
        if entry_id in self._taken:
            other = self._taken[entry_id]
            if other is None or other.absolute() != path.absolute():
                by = "another entry" if other is None else other.name
                raise Refused(f"its id {entry_id} is taken by {by}; rename it")
        values = values_of(
            entry_id, path.absolute(), found, defaults=self._defaults, models=self._models
        )
        return read_entry(values)

    def _compared(self, row: Row) -> Row:
        assert row.entry is not None, "it was just made"
        seen, known = self._memory.get(row.path), self._known.get(row.entry.id)
        if known is None:
            return row
        if seen is not None and self._memory.has_changed(row.path, seen):
            assert row.found is not None, "its entry was made of it"
            check_found(known, row.found, self._config)
            reason = "its contents are others than before"
            return replace(row, entry=known, verdict=Verdict.CHANGED, reason=reason)
        if isinstance(known, AddOn) and isinstance(row.entry, AddOn) and seen is not None:
            models = row.entry.models
            if known.models == seen.models and models != known.models:  # as a scan wrote it
                wider = known.model_copy(update={"models": models})
                reason = f"fits {', '.join(models)}"
                return replace(row, entry=wider, verdict=Verdict.WIDER, reason=reason)
        return replace(row, entry=known, verdict=Verdict.SAME)


def _families_of(entry: ModelEntry, config: CatalogueConfig) -> Sequence[Family]:
    try:
        return families_of(entry, config)
    except OSError:
        return ()  # its folder may not be searched from here
