"""Every file, and what its docstring says first: `python -m tests.meta.rooms > docs/rooms.md`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FILES", "ROOT", "markdown"]

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("serve_app/**/*.py"), *ROOT.glob("deployments/**/*.py")])
_HEAD = """# Which file does what

A section per room, a line per file: the first sentence of its docstring. What each room is for, and
which may import which, is in [the architecture](architecture.md#rooms). Written by
`python -m tests.meta.rooms`.
"""


def markdown() -> str:
    """Write the page."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for room in sorted({path.parent for path in FILES}):
        files = [path for path in FILES if path.parent == room and path.stem != "__init__"]
        if room.name == "versions" or not files:
            continue
        yield f"## `{room.relative_to(ROOT)}/`\n"
        yield f"{_says(room / '__init__.py')}\n"
        yield "| file | what it is |\n|---|---|"
        yield from (f"| `{path.name}` | {_says(path)} |" for path in files)
        yield ""


def _says(path: Path) -> str:
    docstring = (
        ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    )
    return " ".join((docstring or "").split("\n\n")[0].split())


if __name__ == "__main__":
    sys.stdout.write(markdown())
