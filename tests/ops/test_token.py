"""The service on a Ray that asks for a token: `RAY_AUTH_MODE=token`."""

import os
import subprocess
import sys
import time

import httpx2
import pytest

from serve_app.cli.demo import free_port
from tests.fake_app import MODEL, FakeApp
from tests.serve.test_inpaint import INPAINT, body

pytestmark = [pytest.mark.ops, pytest.mark.ray, pytest.mark.timeout(400)]

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    app = FakeApp(tmp_path_factory.mktemp("token"), free_port(), jobs={"hold_s": 30})
    app.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    app.start()
    yield app
    app.kill()


def top(app, **environment: str) -> subprocess.CompletedProcess[str]:
    command = "from serve_app.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "top", "--once", "--address", app.ray_address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


async def test_clients_need_no_token(app):
    """It guards Ray's control plane; who may ask for pictures is `auth.mode`."""
    async with httpx2.AsyncClient(base_url=app.base_url, timeout=60, trust_env=False) as http:
        answer = await http.post(INPAINT, json=body(model_id=MODEL))
    assert answer.json()["status"] == "success", answer.text


def test_operator_with_the_token_sees_the_cluster(app):
    ends_at = time.monotonic() + 120
    while True:
        done = top(app, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        if MODEL in done.stdout:  # its figures come some seconds after it
            return
        assert time.monotonic() < ends_at, done.stdout


def test_nobody_joins_with_another_token(app):
    done = top(app, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64)
    assert done.returncode == 2
    assert MODEL not in done.stdout
    assert "lets us in" in done.stderr
    assert "Traceback" not in done.stderr
