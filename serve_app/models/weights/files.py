"""Which files an entry consists of, and whether they may be loaded. Needs no torch.

A path is judged before anything else opens it: what is missing, leads elsewhere or could run code
when it is loaded never reaches a loader.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import safetensors

from serve_app.models.weights.header import read_length

__all__ = ["Refused", "check_headers", "check_manifest", "digest", "fingerprint", "list_files"]

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_known: dict[tuple[int, int, int, int], str] = {}  # hash by device, inode, size and mtime


class Refused(ValueError):
    """Why the files may not be loaded, for the operator."""


def list_files(source: Path, within: Path | None = None, *, allow_pickle: bool) -> dict[str, Path]:
    """List the files of a folder by relative path, or the single file by its name.

    Links of a hub cache's snapshot may lead to its blobs.

    Args:
        within: folder that links may lead into; none: the source itself.

    Raises:
        Refused: nothing there, a link that leads out, to nothing or in a circle, a pickle.
    """
    if not source.exists():
        raise Refused(f"{source} does not exist")
    root = source.resolve()
    if source.is_file():
        found = {source.name: source}
    elif source.is_dir():
        found = _walk(source, [(within or root).resolve(), *_blobs(root)])
    else:
        raise Refused(f"{source} is neither a folder nor a file")
    pickles = [name for name in found if Path(name).suffix.lower() in _PICKLES]
    if pickles and not allow_pickle:
        raise Refused(
            f"{pickles[0]} is a pickle, which runs code when it is loaded; convert it to "
            "safetensors, remove it, or set catalogue.allow_pickle"
        )
    if not any(_is_weights(name) for name in found):
        raise Refused(f"{source} holds no weights")
    return found


def _blobs(folder: Path) -> Iterator[Path]:
    """Yield where a hub cache keeps the files of a snapshot, of which this is one or a part."""
    for snapshot in (folder, *folder.parents):
        blobs = snapshot.parent.parent / "blobs"
        if snapshot.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            yield blobs


def _walk(folder: Path, within: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for here, folders, files in os.walk(folder, onerror=_raise):
        for name in sorted(folders):
            if (Path(here) / name).is_symlink():
                raise Refused(f"{Path(here) / name} is a link to a folder, which may be a circle")
        for name in files:
            file = Path(here) / name
            found[file.relative_to(folder).as_posix()] = _target(file, within)
    return dict(sorted(found.items()))


def _raise(error: OSError) -> None:
    raise Refused(f"{error.filename} cannot be read") from error


def _target(file: Path, within: Sequence[Path]) -> Path:
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError) as exc:  # Python before 3.13 raises the latter for a circle
        raise Refused(f"{file} is a link to nothing or in a circle") from exc
    if not any(target.is_relative_to(folder) for folder in within):
        raise Refused(f"{file} leads out of its folder")
    if not target.is_file():
        raise Refused(f"{file} is not a plain file")
    return file


def _is_weights(name: str) -> bool:
    return Path(name).suffix.lower() in (".safetensors", *_PICKLES)


def check_headers(files: Mapping[str, Path], *, max_bytes: int, max_tensors: int) -> None:
    """Read the headers of safetensors files, which know how long the file must be.

    Args:
        max_bytes: of a header; a longer one is not read.
        max_tensors: of a file; whoever reads it spends time on each, however small.

    Raises:
        Refused: a file is truncated, or no safetensors whatever its name says, or its header is
            over a limit.
    """
    for name, file in files.items():
        if name.lower().endswith(".safetensors"):
            try:
                _check_header(name, file, max_bytes, max_tensors)
            except (safetensors.SafetensorError, OSError) as exc:
                raise Refused(f"{name} is truncated or not a safetensors file: {exc}") from exc


def _check_header(name: str, file: Path, max_bytes: int, max_tensors: int) -> None:
    with file.open("rb") as opened:
        length = read_length(opened)
    if max_bytes < length <= file.stat().st_size:
        limit = f"catalogue.max_header_bytes is {max_bytes}"
        raise Refused(f"{name} has a header of {length} bytes; {limit}")
    with safetensors.safe_open(file, "numpy") as tensors:
        number = len(tensors.keys())
    if number > max_tensors:
        raise Refused(f"{name} has {number} tensors; catalogue.max_tensors is {max_tensors}")


def check_manifest(files: Mapping[str, Path], wanted: str | Mapping[str, str] | None) -> None:
    """Compare hashes.

    Raises:
        Refused: a file differs or is missing, or there are weights that the manifest does not know.
    """
    if wanted is None:
        return
    if isinstance(wanted, str):
        if len(files) != 1:
            raise Refused("sha256 is one hash, and the source is a folder; give one for each file")
        wanted = dict.fromkeys(files, wanted)
    for name in files:
        if _is_weights(name) and name not in wanted:
            raise Refused(f"{name} is not in the manifest (sha256)")
    for name, expected in wanted.items():
        if name not in files:
            raise Refused(f"{name} is in the manifest (sha256) and does not exist")
        actual = _sha256(files[name])
        if actual != expected:
            raise Refused(f"{name} has the sha256 {actual}, not {expected}")


def digest(source: Path) -> str:
    """Hash what a folder or file holds: equal digests are the same weights. Reads everything.

    The digest of a single file is its sha256.

    Raises:
        OSError: it cannot be read.
    """
    if source.is_file():
        return _sha256(source)
    whole = hashlib.sha256()
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in sorted(files):
        whole.update(f"{file.relative_to(source).as_posix()}\0{_sha256(file)}\n".encode())
    return whole.hexdigest()


def fingerprint(files: Mapping[str, Path]) -> str:
    """Return a digest of files by name, size and time of change, without reading them."""
    facts = [
        (name, (stat := file.stat()).st_size, stat.st_mtime_ns) for name, file in files.items()
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sha256(file: Path) -> str:
    """Hash a file; once per process while it does not change."""
    with file.open("rb") as opened:
        stat = os.fstat(opened.fileno())
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in _known:
            _known[key] = hashlib.file_digest(opened, "sha256").hexdigest()
        return _known[key]
