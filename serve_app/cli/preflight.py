"""What can be told before Ray starts: a service that cannot work should not begin to.

Ray Serve would find out in a replica, many seconds later, and start that replica again for ever.
"""

import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from serve_app import errors
from serve_app.cli import fault
from serve_app.config import AppConfig, DatabaseConfig
from serve_app.database import migrate
from serve_app.models import Catalogue

__all__ = ["check", "check_free", "missing_extras", "problems"]

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def check(config: AppConfig) -> None:
    """Look at what a service on this machine needs: folders, files, catalogue, database.

    Raises:
        ValueError: a line for each thing that is wrong.
    """
    if found := list(problems(config)):
        raise ValueError("\n".join(found))


def check_free(host: str, port: int) -> None:
    """Raise ValueError when somebody listens there, or nobody can."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(address)
    except OSError as exc:
        raise ValueError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc


def problems(
    config: AppConfig, database: Callable[[DatabaseConfig], object] = migrate.prepare
) -> Iterator[str]:
    """List what is wrong, each in a line that names the setting.

    database: prepares or examines the tables; raises what is wrong with them.
    """
    for setting, folder in _written(config).items():
        yield from _told(setting, partial(_check_writable, folder))
    for setting, path in _read(config).items():
        if not path.exists():
            yield f"{setting}: {path} does not exist"
    if config.http.styles is not None:
        # The API takes a second to import; most files name no styles.
        from serve_app.api.requests import style  # noqa: PLC0415

        yield from _told("http.styles", partial(style.table, config.http.styles))
    yield from missing_extras(config)
    yield from _catalogue(config)
    yield from _told("database", partial(database, config.database))


def missing_extras(config: AppConfig) -> Iterator[str]:
    """List the settings that need packages which are not installed."""
    if config.logging.traces_url is not None and not _is_installed(_EXPORTER):
        yield "logging.traces_url: needs `pip install 'dreamserve[otel]'`"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def _told(setting: str, work: Callable[[], object]) -> Iterator[str]:
    """Do it, and return why it could not be done."""
    try:
        work()
    except (ValueError, OSError, errors.DreamserveError) as exc:
        yield from (f"{setting}: {line}" for line in fault.lines(exc))


def _written(config: AppConfig) -> dict[str, Path]:
    folders = {"data_dir": config.data_dir}
    if config.storage.backend == "disk":
        folders["data_dir (files)"] = config.data_dir / "files"
    optional = {
        "catalogue.cache_dir": config.catalogue.cache_dir,
        "engine.cache_dir": config.engine.cache_dir,
    }
    return folders | {name: folder for name, folder in optional.items() if folder is not None}


def _read(config: AppConfig) -> dict[str, Path]:
    optional = {
        "safety.checkpoint": config.safety.checkpoint,
        "engine.translator": config.engine.translator,
        "engine.expander": config.engine.expander,
    }
    hints = {f"hints.{name}": path for name, path in config.hints.paths.items()}
    return hints | {name: path for name, path in optional.items() if path is not None}


def _check_writable(folder: Path) -> None:
    """Write a byte there, since neither permissions nor free space alone tell.

    Raises:
        OSError: it cannot be written; it names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(b"0")
    except OSError as exc:
        raise OSError(exc.errno, f"cannot be written: {exc.strerror}", str(folder)) from exc


def _catalogue(config: AppConfig) -> Iterator[str]:
    try:
        catalogue = Catalogue.load(config.catalogue, config.root_dir)
    except (ValueError, OSError) as exc:
        yield from (f"catalogue: {line}" for line in fault.lines(exc))
        return
    if config.engine.painter == "fake":
        return  # which needs no weights
    for entry in catalogue:
        if entry.placement == "pool":
            continue  # whose other models serve without it
        for path in (entry.source, *entry.parts.values()):
            if isinstance(path, Path) and not path.exists():
                yield f"catalogue: {entry.id} has no weights: {path} does not exist"
