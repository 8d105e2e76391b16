"""Starting the service as `serve run` does, with address and environment prepared."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import yaml

from serve_app.config import AppConfig
from serve_app.config.bind import check_bind

__all__ = ["exec_service", "service"]

_STOP_TIMEOUT_S = 40.0  # Ray needs about 10 s


def exec_service(config: Path, host: str, port: int) -> None:
    """Become `serve run`: the shell's Ctrl-C reaches it directly."""
    command = _command(config, host, port)
    os.execve(command[0], command, _environment())


@contextlib.contextmanager
def service(
    config: Path, host: str, port: int, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service as a child; on leaving, every process that it started is gone.

    To be called on the main thread: SIGTERM leaves like Ctrl-C, or the child would live on.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    child = subprocess.Popen(
        _command(config, host, port),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _stop(child)


def _command(config: Path, host: str, port: int) -> list[str]:
    """Write the config with this address beside the data and name the command that serves it."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["http_options"] = {**settings.get("http_options", {}), "host": host, "port": port}
    app_config = AppConfig.model_validate(settings["applications"][0].get("args", {}))
    check_bind(app_config.auth, host)
    folder = app_config.data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    rendered = folder / f"serve-{port}.yaml"
    rendered.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    code = "from ray.serve.scripts import cli; cli()"
    return [sys.executable, "-c", code, "run", "--address", "local", str(rendered)]


def _environment() -> dict[str, str]:
    """Defaults for a private local cluster; what the caller has set wins."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",  # the cluster is ours alone and listens on loopback
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    return {**defaults, **os.environ}


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, wait, and kill by id whatever is left."""
    family = _family(child.pid)
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    alive = family
    while alive and time.monotonic() < deadline:
        child.poll()  # reap, or it stays a zombie that counts as alive
        _, alive = psutil.wait_procs(alive, timeout=0.5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    child.wait(timeout=5)


def _family(pid: int) -> list[psutil.Process]:
    """The process and all below it; Ray's die with it should it be gone already."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
