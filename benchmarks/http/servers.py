"""The five servers: how each is started, asked, read and stopped."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
import psutil
import yaml

from benchmarks.http.traffic import KINDS, SIDE_PX, Body
from serve_app.cli.demo import free_port
from serve_app.cli.serving import service

__all__ = ["OURS", "Files", "Running", "Server", "running", "servers"]

OURS = "dreamserve"
Reply = Any  # JSON of whatever shape the server gives

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 20.0
_PEERS = "benchmarks.http.peers"
_BATCH = 8  # requests


@dataclass(frozen=True, slots=True)
class Files:
    """What every server loads. loras: a folder of LoRAs; empty or missing where there are none."""

    checkpoint: Path
    loras: Path


class Server:
    """A peer: answers `POST path` with the picture as base64 in `image`."""

    def __init__(
        self, name: str, command: tuple[str, ...], path: str, ready: str, max_batch: int = 1
    ) -> None:
        self.name = name
        self.ready = ready
        self._command = command
        self._path = path
        self._max_batch = max_batch

    def request(self, body: Body) -> tuple[str, Reply]:
        """Return the path and the JSON of a request."""
        return self._path, body

    def picture(self, reply: Reply) -> bytes | str:
        """Return the picture, or the link to it."""
        return base64.b64decode(reply["image"])

    @contextmanager
    def start(
        self,
        files: Files,
        work: Path,  # noqa: ARG002  # ours keeps its data there
        port: int,
        log: IO[bytes],
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the server; on leaving, every process that it started is gone."""
        command = [part.format(port=port) for part in self._command]
        environment = {
            "BENCH_CHECKPOINT": str(files.checkpoint),
            "BENCH_LORAS": str(files.loras),
            "BENCH_PORT": str(port),
            "BENCH_MAX_BATCH": str(self._max_batch),
        }
        child = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            _stop(child)


class _Bento(Server):
    """Lists in and out."""

    def request(self, body: Body) -> tuple[str, Reply]:
        path, payload = super().request(body)
        return path, {"asks": [payload]}

    def picture(self, reply: Reply) -> bytes | str:
        return base64.b64decode(reply[0])


class _Ours(Server):
    """The real application, with a configuration like `configs/dev.yaml`; replies with links."""

    def request(self, body: Body) -> tuple[str, Reply]:
        suffix = "" if body["kind"] == KINDS[0] else f"/{body['kind']}"
        return f"{self._path}{suffix}", body

    def picture(self, reply: Reply) -> bytes | str:
        assert reply["status"] == "success", reply
        link: str = reply["output"][0]
        return link

    @contextmanager
    def start(
        self, files: Files, work: Path, port: int, log: IO[bytes]
    ) -> Iterator[subprocess.Popen[bytes]]:
        with service(_our_config(files, work), "127.0.0.1", port, log) as child:
            yield child


def _our_config(files: Files, work: Path) -> Path:
    model = {
        "id": "random",
        "source": str(files.checkpoint),
        "kinds": list(KINDS),
        "native_size_px": SIDE_PX,
        "serve": {"num_cpus": 0.5, "max_ongoing_requests": 34},
    }
    arguments = {
        "data_dir": str(work / "data"),
        "catalogue": {"path": str(work / "models")},
        "auth": {"mode": "open"},
        "engine": {"max_rows": 64},  # the cap measured at start-up decides
        "jobs": {"hold_s": 300.0},  # answer with the result, as the peers do
        "logging": {"level": "WARNING"},
    }
    application = {
        "name": "dreamserve",
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": arguments,
    }
    config = {
        "proxy_location": "HeadOnly",
        "logging_config": {"enable_access_log": False},
        "applications": [application],
    }
    entries: list[Mapping[str, object]] = [model]
    for file in files.loras.glob("*.safetensors"):
        source = str(file)
        entries.append({"id": file.stem, "type": "lora", "source": source, "models": ["random"]})
    (work / "models").mkdir(parents=True, exist_ok=True)
    for entry in entries:
        path = work / f"models/{entry['id']}.yaml"
        path.write_text(yaml.safe_dump(dict(entry)), encoding="utf-8")
    path = work / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"{_PEERS}.{name}")


def servers(bento_python: str, *, batches_pay: bool) -> tuple[Server, ...]:
    """List all, ours first.

    bento_python: BentoML may need an interpreter of its own, since it holds Ray's packages back.
    batches_pay: whether requests have equal settings. Where they do not, LitServe and BentoML run
    without batches, in which each request would only wait for the last one.
    """
    bento_serve = (bento_python, "-m", "bentoml", "serve", f"{_PEERS}.bento:Painter")
    bento = (*bento_serve, "--host", "127.0.0.1", "--port", "{port}")
    batch = _BATCH if batches_pay else 1
    return (
        _Ours(OURS, (), "/api/v4/dreambooth", "/health/ready"),
        Server("FastAPI + lock", _module("locked"), "/paint", "/ready"),
        Server("Ray Serve `@serve.batch`", _module("batched"), "/", "/", _BATCH),
        Server("LitServe", _module("lit"), "/predict", "/health", batch),
        _Bento("BentoML", bento, "/paint", "/readyz", batch),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each of its processes has used."""
        used: dict[str, float] = {}
        for process in (self.process, *self.process.children(recursive=True)):
            try:
                times, name = process.cpu_times(), _title(process)
            except psutil.Error:
                continue  # it has ended meanwhile
            used[name] = used.get(name, 0.0) + times.user + times.system
        return used


@contextmanager
def running(server: Server, files: Files, work: Path, log_path: Path) -> Iterator[Running]:
    """Start a server and wait until it has loaded the model."""
    port = free_port()
    with log_path.open("ab") as log, server.start(files, work, port, log) as child:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _is_ready(port, server.ready):
            assert child.poll() is None, f"{server.name} ended; see {log_path}"
            assert time.monotonic() < deadline, f"{server.name} is not ready; see {log_path}"
            time.sleep(0.2)
        yield Running(port, psutil.Process(child.pid))


def _is_ready(port: int, path: str) -> bool:
    try:
        reply = httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=5, trust_env=False)
    except httpx2.TransportError:
        return False  # nobody listens yet
    return reply.status_code == httpx2.codes.OK


def _title(process: psutil.Process) -> str:
    """Name a process so that its part in the work shows: the end of what Ray calls it."""
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").split("(")[0].split(".")[0]
    modules = [word for word in words if word.startswith(_PEERS) or word.endswith(".py")]
    return Path(modules[0]).name if modules else process.name()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, wait, and kill by id whatever is left."""
    if child.poll() is not None:
        return  # it ended by itself, with all that it started
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    alive = family
    while alive and time.monotonic() < deadline:
        child.poll()  # reap, or it stays a zombie that counts as alive
        _, alive = psutil.wait_procs(alive, timeout=0.5)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    child.wait(timeout=5)
