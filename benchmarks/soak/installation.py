"""The service under attack: in a folder of its own, with painters that only sleep."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx2
import psutil
import yaml

from serve_app.cli.database import read_config, with_database
from serve_app.cli.demo import free_port, wait_until_ready
from serve_app.cli.serving import service
from serve_app.database.keys import SqlKeyStore

__all__ = ["MODEL", "Installation", "installation"]

MODEL = "fake"
_STEP_S = 0.02
_SAFETY = Path("checkpoints/demo-safety")
_REPLICA = "ray::ServeReplica:dreamserve:"
_PROXY = "ray::ProxyActor"


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
                name, memory = _name(process), process.memory_info().rss
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
        config = _configure(Path(folder))
        ordinary_key, hostile_key = (_new_key(config, name) for name in ("ordinary", "hostile"))
        with _serving(config, port, log) as process:
            yield Installation(port, ordinary_key, hostile_key, process)


@contextlib.contextmanager
def _serving(config: Path, port: int, log: IO[bytes]) -> Iterator[psutil.Process]:
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as http,
        service(config, "127.0.0.1", port, log) as child,
    ):
        wait_until_ready(http, child)
        yield psutil.Process(child.pid)


def _configure(folder: Path) -> Path:
    """Write the configuration: as delivered, but for the painter and where things lie."""
    small = {"num_cpus": 0}
    entry = {
        "id": MODEL,
        "source": "nothing",
        "kinds": ["text2img", "img2img", "inpaint"],
        "native_size_px": 64,
        "serve": small,
    }
    (folder / "models").mkdir()
    (folder / "models" / "fake.yaml").write_text(json.dumps(entry), encoding="utf-8")
    stages = ("ingress", "preprocess", "safety", "upload", "janitor")
    arguments = {
        "root_dir": str(folder),
        "catalogue": {"path": "models"},
        "engine": {"painter": "fake", "fake_step_s": _STEP_S},
        "safety": {"checkpoint": str(_SAFETY.resolve())},
        "serving": dict.fromkeys(stages, small),
    }
    application = {
        "name": "dreamserve",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": arguments,
    }
    settings = {
        "proxy_location": "HeadOnly",
        "logging_config": {"enable_access_log": False},
        "applications": [application],
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def _new_key(config: Path, name: str) -> str:
    _key, secret = with_database(
        read_config(config), lambda database: SqlKeyStore(database).create(name)
    )
    return secret


def _name(process: psutil.Process) -> str | None:
    """Name a replica or the proxy; None for others, the workers of a replica too."""
    title, parent = _title(process), process.parent()
    if title.startswith(_PROXY):
        return "proxy"
    if not title.startswith(_REPLICA) or (parent and _title(parent).startswith(_REPLICA)):
        return None
    return title.removeprefix(_REPLICA).split(".")[0].split("(")[0]


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).rstrip()  # Ray pads what it writes
