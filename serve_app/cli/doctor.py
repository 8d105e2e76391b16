"""`dreamserve doctor`: what this machine has, what a deployment reaches, what is wrong with it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx2
import typer

from serve_app import __version__
from serve_app.cli import fault, preflight
from serve_app.config.serve_file import ConfigFile, read_file
from serve_app.database import migrate
from serve_app.database.connection import shown_url

__all__ = ["show"]

_PACKAGES = ("ray", "torch", "diffusers", "transformers", "pydantic", "sqlalchemy", "pillow")
_TIMEOUT_S = 5.0
_LOW_BYTES = 5 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    text: str
    is_wrong: bool = False


def show(config: Path) -> None:
    """Print what was found; exit code 1 where something is wrong."""
    has_wrong = False
    for finding in _findings(config):
        has_wrong = has_wrong or finding.is_wrong
        typer.echo(f"{'wrong' if finding.is_wrong else 'ok':<7}{finding.text}")
    if has_wrong:
        raise typer.Exit(1)


def _findings(config: Path) -> Iterator[Finding]:
    yield Finding(f"dreamserve {__version__}, Python {sys.version.split()[0]}, {sys.platform}")
    yield Finding(", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES))
    yield from _gpus()
    try:
        file = read_file(config)
    except (ValueError, OSError) as exc:
        yield from (Finding(line, is_wrong=True) for line in fault.lines(exc))
        return
    yield Finding(f"{config}: every setting is known")
    wrong = list(preflight.problems(file.settings, migrate.examine))
    yield from (Finding(line, is_wrong=True) for line in wrong)
    if not wrong:
        version = migrate.status(file.settings.database).version
        yield Finding(f"database {shown_url(file.settings.database)}, tables {version}")
        yield Finding("folders can be written; catalogue and weights are there")
    yield from _disk(file.settings.data_dir)
    yield _service(file)


def _gpus() -> Iterator[Finding]:
    """Ask the driver: torch would take seconds to import."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding("no NVIDIA driver: models run on the CPU")
        return
    columns = "--query-gpu=name,memory.total,driver_version"
    asked = [program, columns, "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        yield Finding(f"nvidia-smi does not answer: {type(exc).__name__}", is_wrong=True)
        return
    yield from (Finding(f"GPU {line}") for line in done.stdout.splitlines())


def _disk(folder: Path) -> Iterator[Finding]:
    if folder.is_dir():
        free = shutil.disk_usage(folder).free
        text = f"{free / 1024**3:,.0f} GiB free in {folder}"
        yield Finding(text, is_wrong=free < _LOW_BYTES)


def _service(file: ConfigFile) -> Finding:
    """Ask the service at the address of the file; that none runs is no fault."""
    http = file.values.get("http_options")
    values = http if isinstance(http, dict) else {}
    host, port = str(values.get("host", "127.0.0.1")), values.get("port", 8000)
    asked = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  # asked here, not listened on
    url = f"http://{f'[{asked}]' if ':' in asked else asked}:{port}/health/ready"
    try:
        with httpx2.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = client.get(url)
    except httpx2.HTTPError:
        return Finding(f"no service answers at {url}")
    is_ready = answer.status_code == httpx2.codes.OK
    return Finding(f"{url} answers {answer.text[:500]}", is_wrong=not is_ready)
