"""`main`: `serve run` on a Ray that it starts itself, on this machine alone."""

import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import ray
from ray.serve.scripts import cli

from serve_app.config.serve_file import read_file

__all__ = ["main"]

_IN_EACH_WORKER = {"worker_process_setup_hook": "deployments.loopback.bind_to_loopback"}


def main() -> None:
    """Serve the config file that is named last, until Ctrl-C or SIGTERM.

    `--dashboard` before the file starts Ray's dashboard too.

    `serve run` by itself always starts that: ten processes, a third of what the whole service takes
    at rest. Metrics and the operator's commands for one machine need none of it.
    """
    has_dashboard = "--dashboard" in sys.argv[1:-1]
    ray.init(
        address="local",
        namespace="serve",
        include_dashboard=has_dashboard,
        runtime_env=_IN_EACH_WORKER,
    )
    # As Ctrl-C does, for process managers: Ray's own handler leaves at once, with jobs at work.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_tell_when_ready, args=(Path(sys.argv[-1]),), daemon=True).start()
    cli(["run", "--address", "auto", sys.argv[-1]])


def _tell_when_ready(config: Path) -> None:
    """Print a line once every model can answer: Ray's own come long before that."""
    url = read_file(config).url()
    began = time.monotonic()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with direct.open(f"{url}/health/ready", timeout=5):
                seconds = time.monotonic() - began
                sys.stdout.write(f"dreamserve: ready at {url} after {seconds:.0f} s\n")
                sys.stdout.flush()
                return
        except (urllib.error.URLError, OSError):  # nobody listens yet, or 503: models load
            time.sleep(1)
