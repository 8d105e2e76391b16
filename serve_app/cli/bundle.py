"""Where the demo is: its models, its pictures, the entries of its catalogue."""

from pathlib import Path

import serve_app

__all__ = ["folder"]


def folder() -> Path:
    """Return the folder that holds `checkpoints`, `examples` and `configs/models` of the demo.

    A wheel has it inside of the package (`setup.py`), a working copy of the code beside it, and a
    container image in the folder that commands start in.
    """
    package = Path(serve_app.__file__).parent
    places = (package / "demo", package.parent, Path.cwd())
    return next((place for place in places if (place / "checkpoints").is_dir()), package.parent)
