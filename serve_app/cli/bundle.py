"""Where the demo is: its models, its pictures, the entries of its catalogue."""

from pathlib import Path

import serve_app

__all__ = ["folder"]


def folder() -> Path:
    """Return the folder that holds `checkpoints`, `examples` and `configs/models` of the demo.

    A wheel has it inside of the package (`setup.py`), a working copy of the code beside it.
    """
    package = Path(serve_app.__file__).parent
    inside = package / "demo"
    return inside if inside.is_dir() else package.parent
