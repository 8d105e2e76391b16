"""How `dreamserve run` prepares its private Ray cluster, and how `top` finds its way into it."""

import os
import socket

import pytest
import yaml

from serve_app.cli import serving, token
from serve_app.cli.demo import free_port


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "serve.yaml"
    args = {"root_dir": str(tmp_path), "engine": {"painter": "fake"}}
    (tmp_path / "configs" / "models").mkdir(parents=True)
    model = "id: tiny\nsource: nowhere\nkinds: [text2img]\n"
    (tmp_path / "configs" / "models" / "tiny.yaml").write_text(model)
    file.write_text(yaml.safe_dump({"applications": [{"name": "dreamserve", "args": args}]}))
    return file


@pytest.fixture
def started(config, monkeypatch):
    """Command and environment of each `serve run`, which never runs."""
    started = []

    def execve(program, command, environment):
        started.append((command, environment))

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "execve", execve)
    return started


@pytest.fixture
def port():
    return free_port()


def run_folder(config):
    return config.parent / "var" / "run"


def test_each_run_has_a_token_that_only_its_owner_can_read(config, started, port):
    run_folder(config).mkdir(parents=True)
    old = run_folder(config) / f"ray-token-{port}"
    old.write_text("of the run before")
    old.chmod(0o644)
    serving.exec_service(config, "127.0.0.1", port)
    (command, environment) = started[0]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(old)
    assert old.stat().st_mode & 0o777 == 0o600
    first = old.read_text()
    assert len(bytes.fromhex(first)) == 32
    assert first not in str(command) + str(environment)
    serving.exec_service(config, "127.0.0.1", port)
    assert old.read_text() != first


@pytest.mark.parametrize("is_said", [False, True])
def test_the_file_says_where_to_listen_unless_the_command_does(config, started, port, is_said):
    values = yaml.safe_load(config.read_text())
    http = {"host": "localhost", "port": 1 if is_said else port}
    config.write_text(yaml.safe_dump(values | {"http_options": http}))
    serving.exec_service(config, "127.0.0.1" if is_said else None, port if is_said else None)
    rendered = yaml.safe_load((run_folder(config) / f"serve-{port}.yaml").read_text())
    host = "127.0.0.1" if is_said else "localhost"
    assert rendered["http_options"] == {"host": host, "port": port}


def test_what_the_caller_has_set_wins(config, started, port, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    serving.exec_service(config, "127.0.0.1", port)
    assert started[0][1]["RAY_AUTH_MODE"] == "disabled"


def test_port_that_is_taken_is_refused_and_its_token_stays(config, started, port):
    serving.exec_service(config, "127.0.0.1", port)
    file = run_folder(config) / f"ray-token-{port}"
    before = file.read_text()
    refused = pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}")
    with socket.create_server(("127.0.0.1", port)), refused:
        serving.exec_service(config, "127.0.0.1", port)
    assert (len(started), file.read_text()) == (1, before)


def test_operators_commands_send_the_token_of_the_newest_run(config, started, monkeypatch):
    folder = run_folder(config)
    folder.mkdir(parents=True)
    for number, port in enumerate((8000, 7000)):
        os.utime(token.make(folder, port), (number, number))
    monkeypatch.setattr(os, "environ", {})
    serving.prepare_to_join(config)
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(folder / "ray-token-7000")
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("known", [{"RAY_AUTH_MODE": "token"}, {}], ids=["set", "no-run"])
def test_operators_commands_send_no_token_that_they_do_not_know(config, known, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(known))
    serving.prepare_to_join(config)
    serving.prepare_to_join(config.with_name("nothing.yaml"))
    assert {name: text for name, text in os.environ.items() if "AUTH" in name} == known


def test_dashboard_is_started_where_it_is_asked_for(config, started, port):
    for has_dashboard in (False, True):
        serving.exec_service(config, "127.0.0.1", port, has_dashboard=has_dashboard)
    assert ["--dashboard" in command for command, _ in started] == [False, True]
    assert all(command[-1].endswith(f"serve-{port}.yaml") for command, _ in started)
