"""`scan`: what is in a folder of downloads, and an entry for each file that can be served.

Reads headers only; blocks. Whatever is wrong with one file is its row's reason, and the rest goes on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from serve_app.config import CatalogueConfig
from serve_app.models.entry import Entry, ModelEntry, read_entry
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.inspection import Family, Inspection
from serve_app.models.inspect.match import check_match, families_of
from serve_app.models.scan.memory import Memory
from serve_app.models.scan.naming import id_of
from serve_app.models.scan.values import Placement, values_of
from serve_app.models.scan.walk import walk
from serve_app.models.weights.files import Refused, list_files

__all__ = ["Row", "Verdict", "scan"]

Watch = Callable[[Sequence[Path]], Iterable[Path]]  # shows progress, or does nothing


class Verdict(StrEnum):
    """What becomes of a file."""

    NEW = "new"
    SAME = "same"  # an entry from an earlier scan has it
    CHANGED = "changed"  # other contents under the same name
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Row:
    """One file. found: None when nothing can be said of it. entry: of those not refused."""

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
    placement: Placement = "own",
    watch: Watch = lambda paths: paths,
) -> list[Row]:
    """Look at every file of a folder.

    Args:
        known: entries of the catalogue by id, with paths of this machine.
        memory: of earlier scans.
        placement: of the models that are found.
        watch: goes over the files one by one.

    Raises:
        OSError: the folder cannot be read.
    """
    looked = [_look(folder, path, config) for path in watch(list(walk(folder)))]
    models = _families(known, looked, config)
    ids: dict[str, Path] = {
        entry.id: entry.source for entry in known.values() if isinstance(entry.source, Path)
    }
    taken = dict.fromkeys(known, Path()) | ids
    rows = []
    for row in looked:
        judged = row if row.found is None else _judge(row, row.found, taken, models, placement)
        if judged.entry is not None:
            judged = _checked(judged, judged.entry, config)
        if judged.entry is not None:
            taken[judged.entry.id] = judged.path
            judged = _compared(judged, memory)
        rows.append(judged)
    gone = (Row(path, Verdict.GONE, f"was {seen.entry_id}") for path, seen in memory.gone(folder))
    return [*rows, *gone]


def _look(folder: Path, path: Path, config: CatalogueConfig) -> Row:
    try:
        list_files(path, folder, allow_pickle=True)  # links that lead out; pickles have a reason
        return Row(path, Verdict.NEW, found=inspect(path, config))
    except (Refused, OSError) as exc:
        return Row(path, Verdict.REFUSED, str(exc))


def _families(
    known: Mapping[str, Entry], looked: Sequence[Row], config: CatalogueConfig
) -> dict[str, Sequence[Family]]:
    """Tell the families of all models, also those that this scan finds."""
    served = (entry for entry in known.values() if isinstance(entry, ModelEntry))
    families: dict[str, Sequence[Family]] = {
        entry.id: families_of(entry, config) for entry in served
    }
    for row in looked:
        if row.found is not None and row.found.type.is_model and (name := id_of(_stem(row.path))):
            families.setdefault(name, row.found.families)
    return families


def _judge(
    row: Row,
    found: Inspection,
    taken: Mapping[str, Path],
    models: Mapping[str, Sequence[Family]],
    placement: Placement,
) -> Row:
    entry_id = id_of(_stem(row.path))
    if entry_id is None:
        return replace(row, verdict=Verdict.REFUSED, reason="no id can be made of its name")
    if entry_id in taken and taken[entry_id].absolute() != row.path.absolute():
        reason = f"its id {entry_id} is taken by {taken[entry_id].name or 'another entry'}"
        return replace(row, verdict=Verdict.REFUSED, reason=f"{reason}; rename it")
    try:
        source = row.path.absolute()
        values = values_of(entry_id, source, found, placement=placement, models=models)
        return replace(row, entry=read_entry(values))
    except (Refused, ValidationError) as exc:
        return replace(row, verdict=Verdict.REFUSED, reason=str(exc))


def _checked(row: Row, entry: Entry, config: CatalogueConfig) -> Row:
    """Refuse at once what a replica would refuse when it loads."""
    try:
        check_match(entry, config)
    except Refused as exc:
        return replace(row, verdict=Verdict.REFUSED, reason=str(exc), entry=None)
    return row


def _compared(row: Row, memory: Memory) -> Row:
    seen = memory.get(row.path)
    if seen is None:
        return row
    if memory.has_changed(row.path, seen):
        return replace(row, verdict=Verdict.CHANGED, reason="its contents are others than before")
    return replace(row, verdict=Verdict.SAME)


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
