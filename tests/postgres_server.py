"""A throw-away PostgreSQL server for tests, from whatever binaries the machine has.

Listed in `pytest_plugins` of the root conftest. The server listens on a unix socket in a folder of
its own, so it needs no port and meets no other server. It is started on first use and lives until
the end of the session.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

_START_TIMEOUT_S = 60.0


def _binary_dirs() -> Iterator[Path]:
    config = shutil.which("pg_config")
    if config is not None:
        found = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            yield Path(found.stdout.strip())
    for name in ("initdb", "postgres"):
        path = shutil.which(name)
        if path is not None:
            yield Path(path).resolve().parent
            yield Path(path).parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`; None when the server is not installed."""
    for folder in _binary_dirs():
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    return None


def _server_user() -> str | None:
    """Whom to run as: initdb refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@dataclass
class PostgresServer:
    """One running server; `stop` and `start` let tests take the database away."""

    binaries: Path
    folder: Path
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Plain URL, as an operator would write it."""
        return f"postgresql://tester@/{database}?host={quote(str(self.folder), safe='')}"

    def initialise(self) -> None:
        """Make the cluster."""
        command = [
            *(str(self.binaries / "initdb"), "-D", str(self.folder / "data"), "-U", "tester"),
            *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ]
        made = subprocess.run(
            command, capture_output=True, text=True, user=self.user, cwd=self.folder, check=False
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr[-2000:]}")

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [
            *(str(self.binaries / "postgres"), "-D", str(self.folder / "data")),
            *("-k", str(self.folder), "-c", "listen_addresses=", "-c", "max_connections=100"),
            # Tests kill processes, never the machine: nothing is lost without fsync.
            *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self.user, cwd=self.folder
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, as a crash would; what was committed stays."""
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: "immediate shutdown"
            self.process.wait(timeout=30)
            self.process = None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this test session."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries (initdb, postgres) on this machine")
    user = _server_user()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    if user is not None:
        shutil.chown(folder, user)
    server = PostgresServer(binaries, folder, user)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _new_database(server: PostgresServer) -> str:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """URL of an empty database of this test alone; it goes with the server."""
    return _new_database(postgres_server)


@pytest.fixture(scope="session")
def shared_postgres_url(postgres_server: PostgresServer) -> str:
    """URL of one database for tests that empty their tables; saves its making for each."""
    return _new_database(postgres_server)
