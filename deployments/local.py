"""`main`: `serve run` on a Ray that it starts itself, on this machine alone."""

import signal
import sys

import ray
from ray.serve.scripts import cli

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
    cli(["run", "--address", "auto", sys.argv[-1]])
