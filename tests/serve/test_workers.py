"""The private Ray of `dreamserve run` starts no worker that nobody uses."""

import subprocess
import sys

import pytest

from serve_app.cli import serving

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# How many workers there are when an actor answers; those of Ray itself would have been first.
CODE = """
import psutil, ray
from deployments.local import _IN_EACH_WORKER

ray.init(address="local", include_dashboard=False, runtime_env=_IN_EACH_WORKER, num_cpus=3)


@ray.remote(num_cpus=0)
class Actor:
    def answer(self):
        return None


actor = Actor.remote()
ray.get(actor.answer.remote())
lines = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
workers = [line for line in lines if line.startswith("ray::") or "default_worker.py" in line]
print(sum(not line.startswith(agents) and "raylet/raylet" not in line for line in workers))
ray.shutdown()
"""


def test_one_actor_takes_one_worker(tmp_path):
    environment = serving._environment(tmp_path / "token") | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "1"
