"""`walk`: the files and folders below a folder that may hold weights."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from serve_app.models.scan.naming import is_generic

__all__ = ["walk"]

_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_PIPELINE = "model_index.json"


def walk(folder: Path) -> Iterator[Path]:
    """Yield them in order of their paths; a folder in diffusers' form is one.

    So is one of a component, which has its settings beside its weights. Links are yielded, whatever
    they lead to, and not followed. What begins with a dot is left out. Folders that may not be
    read come last.

    Raises:
        NotADirectoryError: it is not a folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    closed: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=closed.append):
        if Path(here) != folder and (_PIPELINE in files or _is_component(files)):
            folders.clear()
            yield Path(here)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here) / name for name in folders if (Path(here) / name).is_symlink())
        names = [name for name in files if name.lower().endswith(_ENDINGS)]
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))
    yield from (Path(error.filename) for error in closed)


def _is_component(files: Sequence[str]) -> bool:
    weights = [name for name in files if name.lower().endswith(".safetensors")]
    return "config.json" in files and any(is_generic(name) for name in weights)
