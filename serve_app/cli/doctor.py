"""`dreamserve doctor`: what this machine has, what a deployment reaches, what is wrong with it."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx2
import typer

from serve_app import __version__, errors
from serve_app.cli import fault, preflight
from serve_app.config import AppConfig
from serve_app.config.serve_file import ConfigFile, read_file
from serve_app.database import migrate
from serve_app.database.connection import shown_url
from serve_app.storage import open_store

__all__ = ["show"]

_PACKAGES = ("ray", "torch", "diffusers", "transformers", "pydantic", "sqlalchemy", "pillow")
_TIMEOUT_S = 5.0
_ABSENT = "temp/probe"  # never written: a store that says so answers
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
        tables = f"tables {version}" if version else "no tables yet, a service makes them"
        yield Finding(f"database {shown_url(file.settings.database)}, {tables}")
        yield Finding("folders can be written; catalogue and weights are there")
    yield from _disk(file.settings.data_dir)
    yield from _bucket(file.settings)
    yield from _collector(file.settings)
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


def _bucket(settings: AppConfig) -> Iterator[Finding]:
    """Read a file that is not there: address, bucket, key and secret have to be right for that."""
    storage = settings.storage
    if storage.s3 is None or storage.backend != "s3":
        return
    bucket = f"storage: bucket {storage.s3.bucket}"
    once = storage.s3.model_copy(update={"timeout_s": _TIMEOUT_S, "max_attempts": 1})
    try:
        store = open_store(storage.model_copy(update={"s3": once}), settings.data_dir)
        asyncio.run(store.get(_ABSENT))
    except (errors.DreamserveError, ImportError, ValueError) as exc:
        yield from (Finding(f"{bucket}: {line}", is_wrong=True) for line in fault.lines(exc))
    else:
        yield Finding(f"{bucket} answers")


def _collector(settings: AppConfig) -> Iterator[Finding]:
    """Send no spans, as they would be sent: the collector says whether it takes them."""
    url = settings.logging.traces_url
    if url is None or any(preflight.missing_extras(settings)):
        return
    from serve_app.telemetry.recorder import refusal  # noqa: PLC0415  # needs the extra

    reason = refusal(url, _TIMEOUT_S)
    if reason is None:
        yield Finding(f"logging.traces_url: {url} takes spans")
    else:
        yield Finding(f"logging.traces_url: {url}: {reason}", is_wrong=True)


def _service(file: ConfigFile) -> Finding:
    """Ask the service at the address of the file; that none runs is no fault."""
    url = f"{file.url()}/health/ready"
    try:
        with httpx2.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = client.get(url)
    except httpx2.HTTPError:
        return Finding(f"no service answers at {url}")
    is_ready = answer.status_code == httpx2.codes.OK
    return Finding(f"{url} answers {answer.text[:500]}", is_wrong=not is_ready)
