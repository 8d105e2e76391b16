"""`dreamserve deploy` from the shell's side; the cluster is a fake."""

import pytest
import yaml
from typer.testing import CliRunner

from deployments import dashboard
from serve_app.cli import deploy as deploy_command
from serve_app.cli.demo import free_port
from serve_app.cli.main import app
from serve_app.models.rollout import RolloutFailed


@pytest.fixture
def config(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # put back after the test
        monkeypatch.delenv(name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "hot.yaml").write_text("id: hot\nsource: hot\nkinds: [text2img]\n")
    args = {"root_dir": str(tmp_path), "catalogue": {"path": "models"}}
    application = {"name": "d", "import_path": "serve_app.app:build", "args": args}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}))
    return path


@pytest.fixture
def sent(monkeypatch):
    """Files that reach the cluster; set `fails` to have them refused there."""

    class Sent(list):
        fails = None

    sent = Sent()

    def roll_out(target, file, tell, patience):
        sent.append((target, file, patience.timeout_s))
        if sent.fails:
            raise RolloutFailed(sent.fails)
        tell("d: running")

    monkeypatch.setattr(dashboard, "Dashboard", lambda address: address)
    monkeypatch.setattr(deploy_command, "roll_out", roll_out)
    return sent


def run(config, *options):
    return CliRunner().invoke(app, ["deploy", str(config), *options])


def test_parts_go_to_the_address(config, sent):
    done = run(config, "--address", "http://ray:8265", "--timeout-s", "60")
    assert (done.exit_code, done.stdout) == (0, "d: running\ndeployed\n")
    ((address, file, timeout_s),) = sent
    assert (address, timeout_s) == ("http://ray:8265", 60)
    printed = CliRunner().invoke(app, ["config", "--config", str(config), "--parts"])
    assert yaml.safe_load(printed.stdout) == file
    assert "&id" not in printed.stdout
    assert len(file["applications"]) == 5


def test_deploy_that_fails_says_why_in_a_line(config, sent):
    sent.fails = "model-hot did not start: ValueError: no weights"
    done = run(config)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"dreamserve: {sent.fails}\n"


def test_no_dashboard_is_told_in_a_line(config):
    done = run(config, "--address", f"http://127.0.0.1:{free_port()}")
    assert isinstance(done.exception, ConnectionError)
    assert len(str(done.exception).splitlines()) == 1
