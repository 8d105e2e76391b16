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
from pydantic import JsonValue

from serve_app.cli import preflight, token
from serve_app.cli.database import read_config
from serve_app.config import AppConfig
from serve_app.config.bind import check_bind
from serve_app.config.serve_file import read_file

__all__ = ["exec_service", "prepare_to_join", "service"]

_STOP_TIMEOUT_S = 40.0  # Ray needs about 10 s
# Ray takes 127.0.0.1 for the address of a node that forms no cluster, and all of its processes
# listen there only. Everywhere else it turns 127.0.0.1 into the machine's own address.
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Serve's controller looks at every replica this often; ten times a second took a third of a core.
_LOOKS = {"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5"}
# Workers that Ray starts before anybody asks have no setup hook (`deployments.local`), so that
# none is of use: one per core, which is stopped again while the replicas want the processor.
_WORKERS = {"RAY_prestart_worker_first_driver": "0"}


def exec_service(
    config: Path, host: str | None, port: int | None, *, has_dashboard: bool = False
) -> None:
    """Become `serve run`: the shell's Ctrl-C reaches it directly.

    host, port: in place of the file's; None: as the file says.
    """
    http_options = read_file(config).http_options
    host = host or str(http_options.get("host", "127.0.0.1"))
    port = port or int(str(http_options.get("port", 8000)))
    command, environment = _prepare(config, host, port, has_dashboard)
    os.execve(command[0], command, environment)


@contextlib.contextmanager
def service(
    config: Path, host: str, port: int, log: IO[bytes], *, has_dashboard: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service as a child; on leaving, every process that it started is gone.

    has_dashboard: Ray's, whose REST API takes deploys.

    To be called on the main thread: SIGTERM leaves like Ctrl-C, or the child would live on.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    command, environment = _prepare(config, host, port, has_dashboard)
    child = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _stop(child)


def prepare_to_join(config: Path) -> None:
    """Authenticate this process to the cluster of the service that runs with this config.

    To be called before Ray is imported. What the caller has set wins.
    """
    os.environ.update({**_ON_LOOPBACK, **os.environ})
    if "RAY_AUTH_MODE" in os.environ or not config.exists():
        return
    file = token.find(_run_folder(read_config(config)))
    if file is not None:
        os.environ.update(token.environment(file))


def _run_folder(config: AppConfig) -> Path:
    return config.data_dir / "run"


def _prepare(
    config: Path, host: str, port: int, has_dashboard: bool
) -> tuple[list[str], dict[str, str]]:
    """Write the config with this address beside the data; give command and environment to serve it.

    Raises:
        ValueError: the address is taken or would be open to everybody by accident, or what
            `preflight` looks at is wrong.
    """
    file = read_file(config)
    app_config = file.settings
    check_bind(app_config.auth, host)
    preflight.check_free(host, port)  # first: who serves there needs its token
    preflight.check(app_config)
    address: dict[str, JsonValue] = {"host": host, "port": port}
    settings = {**file.values, "http_options": file.http_options | address}
    folder = _run_folder(app_config)
    folder.mkdir(parents=True, exist_ok=True)
    rendered = folder / f"serve-{port}.yaml"
    rendered.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-c", "from deployments.local import main; main()"]
    command += [*(["--dashboard"] if has_dashboard else []), str(rendered)]
    return command, _environment(token.make(folder, port))


def _environment(token_file: Path) -> dict[str, str]:
    """Defaults for a private local cluster; what the caller has set wins."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        **_ON_LOOPBACK,
        **_LOOKS,
        **_WORKERS,
        **token.environment(token_file),
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
