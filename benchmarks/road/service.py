"""The service on a database and behind a proxy, and what its processes have used."""

import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import func, select

from benchmarks.fake_service import configure, part_name, serving
from serve_app.cli.database import read_config, with_database
from serve_app.cli.demo import free_port
from serve_app.config import AppConfig
from serve_app.database.connection import Database
from serve_app.database.migrate import upgrade
from serve_app.database.schema import jobs

__all__ = ["Served", "Setup", "served"]

_MAX_DRIVEN = 200


@dataclass(frozen=True, slots=True)
class Setup:
    """What is compared. max_open: jobs. database_url: None for a SQLite file made anew."""

    proxy: str
    num_ingresses: int
    max_open: int
    database_url: str | None = None

    def __str__(self) -> str:
        is_sqlite = self.database_url is None or self.database_url.startswith("sqlite")
        database = "SQLite" if is_sqlite else "PostgreSQL"
        plural = "es" if self.num_ingresses > 1 else ""
        return f"{database}, {self.proxy}, {self.num_ingresses} ingress{plural}"


@dataclass(frozen=True, slots=True)
class Served:
    """A service that answers."""

    base_url: str
    process: psutil.Process
    config: AppConfig

    def cpu_s(self) -> Mapping[str, float]:
        """Return the CPU seconds that each part has used; what has no name is Ray's."""
        used: dict[str, float] = defaultdict(float)
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                times = process.cpu_times()
                used[part_name(process) or process.name()] += times.user + times.system
        return used

    def num_jobs(self) -> int:
        """Count the jobs that were accepted; the answers that the load heard of may be fewer.

        What is on its way when the load ends is accepted too, and nobody counts its answer.
        """
        return with_database(self.config, _num_jobs)

    def pids(self, part: str) -> list[int]:
        """Return the processes of a part."""
        found = []
        for process in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if part_name(process) == part:
                    found.append(process.pid)
        return found


@contextlib.contextmanager
def served(setup: Setup, log_path: Path) -> Iterator[Served]:
    """Start it and wait until it answers; on leaving, its processes and files are gone."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, log_path.open("ab") as log:
        limits = {"max_open": setup.max_open, "max_driven": min(_MAX_DRIVEN, setup.max_open)}
        sections: dict[str, object] = {"auth": {"mode": "open"}, "jobs": limits}
        if setup.database_url is not None:
            sections["database"] = {"url": setup.database_url}
        config = configure(Path(folder), sections, setup.num_ingresses)
        settings = read_config(config)
        if setup.database_url is not None:
            upgrade(settings.database)
        with _environment(setup, Path(folder)), serving(config, port, log) as process:
            yield Served(f"http://127.0.0.1:{port}", process, settings)


async def _num_jobs(database: Database) -> int:
    count = select(func.count()).select_from(jobs)
    return await database.read(lambda connection: connection.scalar(count) or 0)


@contextlib.contextmanager
def _environment(setup: Setup, folder: Path) -> Iterator[None]:
    """Set what Serve's HAProxy asks for; each file and port of its own."""
    before = dict(os.environ)
    if setup.proxy == "HAProxy":
        files = folder / "haproxy"
        os.environ |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
