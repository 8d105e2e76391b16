"""`dreamserve models convert`: pickles to safetensors, read where they can do no harm."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from serve_app.cli.table import show_table
from serve_app.config import CatalogueConfig
from serve_app.models.inspect.file import Unreadable
from serve_app.models.inspect.inspect import inspect

__all__ = ["convert_files"]

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_MEMORY_BYTES = 2 * 1024**3  # beside the file, twice: as it is read, and what is not mapped
_TEXT_BYTES = 4096
_BROKEN = "the process that read it ended; it may need more memory than there is"


class _Refused(Exception):
    """Why a file was not converted."""


def convert_files(files: Sequence[Path], target: Path | None, timeout_s: float) -> None:
    """Convert files one by one and print a row for each; exit code 1 where one was refused.

    target: folder for the results; None: beside each file.
    """
    table = Table("file", "becomes", "what it is")
    num_refused = 0
    for file in track(files, "converting", transient=True, console=Console(stderr=True)):
        try:
            made = _convert(file, target, timeout_s)
            told = (made.name, _description(made))
        except _Refused as exc:
            num_refused += 1
            told = ("[red]refused[/red]", escape(f"{file.name} {exc}"))
        table.add_row(escape(str(file)), *told)
    show_table(table)
    if num_refused:
        raise typer.Exit(1)


def _convert(file: Path, target: Path | None, timeout_s: float) -> Path:
    made = (target or file.parent) / f"{file.stem}.safetensors"
    if file.suffix.lower() not in _PICKLES:
        raise _Refused(f"is none of {', '.join(_PICKLES)}")
    if not file.is_file():
        raise _Refused("does not exist, or is not a plain file")
    if made.exists():
        raise _Refused(f"would become {made}, which exists already")
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent, prefix=".convert-") as folder:
            unfinished = Path(folder) / made.name
            _run(file, unfinished, timeout_s)
            os.link(unfinished, made)  # fails where somebody else made one meanwhile
    except FileExistsError as exc:
        raise _Refused(f"would become {made}, which exists already") from exc
    except OSError as exc:
        raise _Refused(f"cannot be read or written: {exc.strerror}") from exc
    return made


def _run(file: Path, unfinished: Path, timeout_s: float) -> None:
    """Read a pickle in a process of its own, which is killed at the limit and with this one."""
    memory_bytes = 2 * file.stat().st_size + _MEMORY_BYTES
    command = (sys.executable, "-P", "-W", "ignore", "-m", "serve_app.pipelines.unpickling")
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            (*command, str(file.resolve()), str(unfinished.resolve()), str(memory_bytes)),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # Ctrl-C is for the parent, which kills it
        )
    except subprocess.TimeoutExpired as exc:
        raise _Refused(f"was not read within {timeout_s:g} s; see --timeout-s") from exc
    try:
        said = json.loads(ended.stdout[-_TEXT_BYTES:])
    except ValueError as exc:
        raise _Refused(_BROKEN) from exc
    if "refused" in said:
        raise _Refused(said["refused"])
    if not unfinished.is_file():
        raise _Refused(_BROKEN)


def _description(made: Path) -> str:
    try:
        return escape(inspect(made, CatalogueConfig()).describe())
    except Unreadable as exc:
        return escape(str(exc))
