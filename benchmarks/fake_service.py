"""The whole service with painters that paint nothing, to measure all but the painting."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import httpx2
import psutil
import yaml

from serve_app.cli.demo import wait_until_ready
from serve_app.cli.serving import service

__all__ = ["MODEL", "configure", "part_name", "serving"]

MODEL = "fake"
_REPLICA = "ray::ServeReplica:dreamserve:"
_PROXY = "ray::ProxyActor"
_STAGES = ("ingress", "preprocess", "safety", "upload", "janitor")


def configure(folder: Path, sections: Mapping[str, object], num_ingresses: int = 1) -> Path:
    """Write the configuration: as delivered, but for the painter and where things lie.

    sections: of the settings, which replace those made here.
    """
    small: dict[str, object] = {"num_cpus": 0}
    entry = {
        "id": MODEL,
        "source": "nothing",
        "kinds": ["text2img", "img2img", "inpaint"],
        "native_size_px": 64,
        "serve": small,
    }
    (folder / "models").mkdir()
    (folder / "models" / "fake.yaml").write_text(json.dumps(entry), encoding="utf-8")
    twins = {"min_replicas": num_ingresses, "max_replicas": num_ingresses}
    arguments = {
        "root_dir": str(folder),
        "catalogue": {"path": "models"},
        "engine": {"painter": "fake"},
        "serving": dict.fromkeys(_STAGES, small) | {"ingress": small | twins},
        **sections,
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


@contextlib.contextmanager
def serving(config: Path, port: int, log: IO[bytes]) -> Iterator[psutil.Process]:
    """Start it and wait until it answers; on leaving, all of its processes are gone."""
    with (
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as http,
        service(config, "127.0.0.1", port, log) as child,
    ):
        wait_until_ready(http, child)
        yield psutil.Process(child.pid)


def part_name(process: psutil.Process) -> str | None:
    """Name a replica or the proxy; None for others, the workers of a replica too."""
    title, parent = _title(process), process.parent()
    if title.startswith(_PROXY):
        return "proxy"
    if not title.startswith(_REPLICA) or (parent and _title(parent).startswith(_REPLICA)):
        return None
    return title.removeprefix(_REPLICA).split(".")[0].split("(")[0]


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).rstrip()  # Ray pads what it writes
