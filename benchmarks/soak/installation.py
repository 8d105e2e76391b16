"""The service under attack: in a folder of its own, with painters that only sleep."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.fake_service import MODEL, configure, part_name, serving
from serve_app.cli.database import read_config, with_database
from serve_app.cli.demo import free_port
from serve_app.database.keys import SqlKeyStore

__all__ = ["MODEL", "Installation", "installation"]

_SECTIONS = {
    "engine": {"painter": "fake", "fake_step_s": 0.02},
    "safety": {"checkpoint": str(Path("checkpoints/demo-safety").resolve())},
}


@dataclass(slots=True)
class Installation:
    """A service that answers. peak_bytes: the largest resident size seen of each process."""

    port: int
    ordinary_key: str
    hostile_key: str
    process: psutil.Process
    peak_bytes: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    def look(self) -> set[tuple[str, int]]:
        """List name and id of the proxy and of every replica, and note their resident sizes."""
        found: set[tuple[str, int]] = set()
        for process in self.process.children(recursive=True):
            try:
                name, memory = part_name(process), process.memory_info().rss
            except psutil.Error:
                continue  # it has ended meanwhile
            if name is not None:
                seen = (name, process.pid)
                found.add(seen)
                self.peak_bytes[seen] = max(memory, self.peak_bytes.get(seen, 0))
        return found


@contextlib.contextmanager
def installation(log_path: Path) -> Iterator[Installation]:
    """Start it and wait until it answers; on leaving, all of its processes and files are gone."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, log_path.open("wb") as log:
        config = configure(Path(folder), _SECTIONS)
        ordinary_key, hostile_key = (_new_key(config, name) for name in ("ordinary", "hostile"))
        with serving(config, port, log) as process:
            yield Installation(port, ordinary_key, hostile_key, process)


def _new_key(config: Path, name: str) -> str:
    _key, secret = with_database(
        read_config(config), lambda database: SqlKeyStore(database).create(name)
    )
    return secret
