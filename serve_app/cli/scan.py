"""`dreamserve models scan`: entries for a folder of downloads, in one command."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import typer
import yaml
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from serve_app import errors
from serve_app.cli.database import read_config, with_database
from serve_app.cli.table import show_table
from serve_app.config import AppConfig
from serve_app.database.connection import Database
from serve_app.database.models import SqlModelStore
from serve_app.models import AddOn, Catalogue
from serve_app.models.entry import Entry, ModelEntry, anchored
from serve_app.models.protocol import ModelStore
from serve_app.models.registry import Registry
from serve_app.models.scan.memory import Memory
from serve_app.models.scan.scan import Row, Verdict, scan
from serve_app.models.scan.values import ScanDefaults
from serve_app.models.weights.files import Refused

__all__ = ["Dtype", "scan_folder"]

_ADDED = (Verdict.NEW, Verdict.CHANGED, Verdict.WIDER)
_STYLES = {
    Verdict.NEW: "green",
    Verdict.CHANGED: "yellow",
    Verdict.WIDER: "yellow",
    Verdict.REFUSED: "red",
}
_HASHES_AT_ONCE = 2


class Dtype(StrEnum):
    """Of weights and activations."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


def scan_folder(
    config: Path, folder: Path, dtype: Dtype | None, *, is_added: bool, target: Path | None
) -> None:
    """Print a row for each file; add the good ones or write their entries; exit code 1 on a fault.

    dtype: of models; None leaves it to their category. is_added: to the running service.
    target: folder for files of the catalogue.
    """
    settings = read_config(config)
    fixed = Catalogue.load(settings.catalogue, settings.root_dir)
    has_pool = fixed.has_pool(settings.pool)
    assert settings.catalogue.cache_dir is not None, "AppConfig fills it in"
    memory = Memory(settings.catalogue.cache_dir)
    try:
        rows = scan(
            folder,
            _known(settings, fixed),
            memory,
            settings.catalogue,
            defaults=ScanDefaults(
                placement="pool" if has_pool else "own",
                dtype=None if dtype is None else dtype.value,
            ),
            watch=lambda paths: track(paths, "reading headers", transient=True),
        )
    except OSError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(1) from exc
    if target is not None:
        rows = _all_written(rows, target, fixed, memory)
    if is_added:
        rows = _added(rows, settings, fixed, memory, has_pool=has_pool)
    _show(folder, rows)
    if is_added and any(_wants_replicas(row) for row in rows):
        typer.echo("deploy what `dreamserve config` prints to have the models served", err=True)
    if target is not None or is_added:
        _hash(folder.resolve(), memory)


def _wants_replicas(row: Row) -> bool:
    entry = row.entry
    return isinstance(entry, ModelEntry) and entry.placement == "own" and row.verdict is Verdict.NEW


def _hash(folder: Path, memory: Memory) -> None:
    """Hash what became entries; whoever does not wait for it has the next scan go on."""
    paths = memory.unhashed(folder)
    try:
        with ThreadPoolExecutor(_HASHES_AT_ONCE, thread_name_prefix="hash") as threads:
            hashed = threads.map(memory.hash, paths)
            for _ in track(hashed, "hashing what is served now", total=len(paths), transient=True):
                pass
    except OSError as exc:
        typer.echo(f"not hashed: {exc}", err=True)
    finally:
        memory.save()


def _known(settings: AppConfig, fixed: Catalogue) -> dict[str, Entry]:
    entries = with_database(settings, lambda database: SqlModelStore(database).entries())
    found: list[Entry] = [*fixed, *fixed.add_ons]
    found += [anchored(entry, settings.root_dir) for entry in entries]
    return {entry.id: entry for entry in found}


def _all_written(rows: Sequence[Row], target: Path, fixed: Catalogue, memory: Memory) -> list[Row]:
    """Write entries; those of add-ons name models that are files of the catalogue too."""
    target.mkdir(parents=True, exist_ok=True)
    found = {row.entry.id for row in rows if isinstance(row.entry, ModelEntry)}
    in_files = found | {model.id for model in fixed}
    written = []
    try:
        for row in rows:
            try:
                written.append(_written(row, target, in_files, memory))
            except (Refused, OSError) as exc:
                written.append(Row(row.path, Verdict.REFUSED, str(exc), row.found))
    finally:
        memory.save()
    return written


def _written(row: Row, target: Path, in_files: Container[str], memory: Memory) -> Row:
    entry = row.entry
    if entry is None or row.verdict not in (Verdict.NEW, Verdict.CHANGED):
        return row
    if isinstance(entry, AddOn):
        models = tuple(name for name in entry.models if name in in_files)
        if not models:
            raise Refused("no model of its family is a file of the catalogue")
        entry = entry.model_copy(update={"models": models})
    if row.verdict is Verdict.NEW:  # of what has changed, the entry stays as it was
        values = entry.model_dump(mode="json", exclude_unset=True)
        file = target / f"{entry.id}.yaml"
        try:
            with file.open("x", encoding="utf-8") as opened:
                yaml.safe_dump(values, opened, sort_keys=False, allow_unicode=True)
        except FileExistsError as exc:
            raise Refused(f"{file.name} is there already") from exc
    memory.put(row.path, entry, is_file=True)
    return row


def _added(
    rows: Sequence[Row], settings: AppConfig, fixed: Catalogue, memory: Memory, *, has_pool: bool
) -> list[Row]:
    """Add models before what fits them; a row that the service refuses has its reason."""
    order = sorted(rows, key=lambda row: isinstance(row.entry, AddOn))
    wanted = [row for row in order if row.entry is not None and row.verdict in _ADDED]

    async def add(database: Database) -> dict[Path, str]:
        store = SqlModelStore(database)
        registry = Registry(fixed, store, has_pool=has_pool)
        refused = {}
        for row in track(wanted, "adding", transient=True):
            try:
                await _add(row, registry, store, fixed, memory)
            except errors.InvalidRequest as exc:
                refused[row.path] = exc.detail
            except OSError as exc:
                refused[row.path] = str(exc)
        return refused

    try:
        refused = with_database(settings, add)
    finally:
        memory.save()
    return [
        Row(row.path, Verdict.REFUSED, refused[row.path], row.found) if row.path in refused else row
        for row in rows
    ]


async def _add(
    row: Row, registry: Registry, store: ModelStore, fixed: Catalogue, memory: Memory
) -> None:
    """Add an entry, or have the replicas of one take up what has changed.

    Add-ons are looked at anew by every request; a model is loaded anew.
    """
    entry = row.entry
    assert entry is not None, "chosen so"
    if row.verdict is not Verdict.CHANGED:
        await registry.add(entry)
    elif isinstance(entry, ModelEntry):
        await store.advance(entry.id)
    memory.put(row.path, entry, is_file=entry.id in fixed)


def _show(folder: Path, rows: Sequence[Row]) -> None:
    table = Table("file", "what it is", "id", "verdict", "reason")
    for row in rows:
        verdict = (
            f"[{style}]{row.verdict}[/]" if (style := _STYLES.get(row.verdict)) else row.verdict
        )
        cells = (escape(_printable(cell)) for cell in (*_cells(folder, row), row.reason))
        path, noun, entry_id, reason = cells
        table.add_row(path, noun, entry_id, verdict, reason)
    show_table(table)
    counts = Counter(row.verdict for row in rows)
    typer.echo(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]))


def _printable(text: str) -> str:
    """Replace what would steer a terminal: strangers choose the names of files."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cells(folder: Path, row: Row) -> Iterator[str]:
    name = row.path.relative_to(folder.resolve())
    yield str(name)
    yield "" if row.found is None else row.found.noun
    yield "" if row.entry is None else row.entry.id
