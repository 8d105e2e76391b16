"""`serve deploy` of what `dreamserve config` prints, to the dashboard of a service that runs."""

import os
import re
import subprocess
import sys
import time

import httpx2
import psutil
import pytest
import yaml

from serve_app.cli.demo import free_port
from serve_app.cli.serving import service
from tests.processes import descendants
from tests.serve.conftest import ADMIN_KEY
from tests.serve.test_applications import SERVICE, Installation, entry, write_weights

pytestmark = [pytest.mark.ops, pytest.mark.ray, pytest.mark.timeout(700)]

DREAMSERVE = "from serve_app.cli import main; main()"
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}
WAIT_S = 300  # a machine may be loaded


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    installed = Installation(tmp_path_factory.mktemp("deploy"), free_port())
    port = installed.port
    with (
        installed.log.open("wb") as log,
        service(installed.file, "127.0.0.1", port, log, has_dashboard=True),
    ):
        yield installed


@pytest.fixture
def http(installed):
    with httpx2.Client(base_url=installed.base_url, timeout=60, trust_env=False) as http:
        yield http


def until(is_so):
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def answers(http, model_id):
    try:
        ready = http.get("/health/ready").json()
    except (httpx2.TransportError, ValueError):  # not there yet
        return False
    return ready.get("models", {}).get(model_id, False)


def call(*command, **environment):
    return subprocess.run(
        [sys.executable, "-c", *command],
        check=False,  # its own message is worth more than ours
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={name: text for name, text in os.environ.items() if name != "RAY_AUTH_MODE"}
        | environment,
    )


def output(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def token_of(installed):
    """What `docs/deployment.md` says that Ray's own commands need."""
    file = installed.folder / "var" / "run" / f"ray-token-{installed.port}"
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


def replicas(application):
    """Processes of the application's replicas."""
    return {one.pid for one, title in descendants() if f"ServeReplica:{application}:" in title}


def cluster_address():
    """Where drivers may join."""
    (gcs,) = [one for one, title in descendants() if "/gcs_server " in title]
    (port,) = {c.laddr.port for c in gcs.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return f"127.0.0.1:{port}"


def test_top_finds_cluster_and_token(installed, http):
    until(lambda: answers(http, "first"))
    look = "top", "--once", "--address", cluster_address(), "--config", str(installed.file)
    assert "first" in output(call(DREAMSERVE, *look))


def test_deploy_adds_a_model_and_restarts_no_other(installed, http):
    until(lambda: answers(http, "first"))
    others = replicas(SERVICE)
    write_weights(installed.folder / "hot", 1)
    added = http.post("/admin/models", json=entry("hot"), headers=OPERATOR)
    assert added.status_code == 201
    printed = output(call(DREAMSERVE, "config", "--config", str(installed.file)))
    assert yaml.safe_load(printed)["applications"][1]["name"] == "model-hot"
    (installed.folder / "next.yaml").write_text(printed)
    dashboard = re.search(r"dashboard at .*?(127\.0\.0\.1:\d+)", installed.log.read_text())
    deploy = "from ray.serve.scripts import cli; cli()", "deploy"
    deploy = *deploy, str(installed.folder / "next.yaml"), "-a", f"http://{dashboard[1]}"
    refused = call(*deploy, RAY_AUTH_MODE="disabled")
    assert refused.returncode != 0
    assert not replicas("model-hot")
    output(call(*deploy, **token_of(installed)))
    until(lambda: answers(http, "hot"))
    assert replicas("model-hot")
    assert replicas(SERVICE) == others
