"""`walk`: the files and folders below a folder that may hold weights."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["walk"]

_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_PIPELINE = "model_index.json"


def walk(folder: Path) -> Iterator[Path]:
    """Yield them in order of their paths; a folder in diffusers' form is one.

    Links to files are yielded, whatever they lead to; those to folders are not followed. What
    begins with a dot is left out. Folders that may not be read come last.

    Raises:
        NotADirectoryError: it is no folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    closed: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=closed.append):
        if _PIPELINE in files and Path(here) != folder:
            folders.clear()
            yield Path(here)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in files if name.lower().endswith(_ENDINGS)]
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))
    yield from (Path(error.filename) for error in closed)
