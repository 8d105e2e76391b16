"""`walk`: the files and folders below a folder that may hold weights."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["walk"]

_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_PIPELINE = "model_index.json"


def walk(folder: Path) -> Iterator[Path]:
    """Yield them in order of their paths; a folder in diffusers' form is one.

    Links are yielded, whatever they lead to, and not followed; what begins with a dot is left out.

    Raises:
        NotADirectoryError: it is no folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    for here, folders, files in os.walk(folder):
        if _PIPELINE in files and Path(here) != folder:
            folders.clear()
            yield Path(here)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in files if name.lower().endswith(_ENDINGS)]
        yield from (Path(here) / name for name in sorted(names) if not name.startswith("."))
