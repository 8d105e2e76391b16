"""What operators get wrong is told in lines, with exit code 2, before anything is started."""

import os
import socket
import sys

import pytest
import yaml
from ray.serve import schema

from serve_app.cli import main, preflight, serving
from serve_app.cli.demo import free_port
from serve_app.config import serve_file as config_file
from tests import community_files

COMMANDS = {
    "run": ["run", "--port", "1"],
    "demo": ["demo", "--out", "{folder}/out"],
    "config": ["config"],
    "config-parts": ["config", "--parts"],
    "deploy": ["deploy", "--address", "http://127.0.0.1:1"],
    "top": ["top", "--once"],
    "keys-list": ["keys", "list"],
    "keys-create": ["keys", "create", "me"],
    "models-list": ["models", "list"],
    "models-verify": ["models", "verify"],
    "models-scan": ["models", "scan", "{folder}"],
    "models-status": ["models", "status", "hot"],
    "db-status": ["db", "status"],
    "db-upgrade": ["db", "upgrade"],
    "db-check": ["db", "check"],
    "db-backup": ["db", "backup", "{folder}/copy.db"],
}


@pytest.fixture
def folder(tmp_path):
    """A deployment in which nothing is wrong."""
    community_files.write(tmp_path / "hot" / "unet" / "x.safetensors", {"a": (3,)})
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "hot.yaml").write_text("id: hot\nsource: hot\nkinds: [text2img]\n")
    return tmp_path


@pytest.fixture
def write(folder):
    """Write a Serve config file with these settings; text and bytes as they are."""

    def write(**args):
        path = folder / "serve.yaml"
        args = {"root_dir": str(folder), "catalogue": {"path": "models"}} | args
        path.write_text(yaml.safe_dump({"applications": [{"name": "d", "args": args}]}))
        return path

    return write


@pytest.fixture
def call(monkeypatch, capsys, folder):
    """Run the script as a shell would; what `run` becomes is never started."""
    started = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))

    def call(*arguments, config=None):
        arguments = [one.format(folder=folder) for one in arguments]
        if config is not None:
            arguments += [str(config)] if arguments[0] == "deploy" else ["--config", str(config)]
        monkeypatch.setattr(sys, "argv", ["dreamserve", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err, started

    return call


def told(result, *words):
    """Whether there is nothing but lines of ours, and they say this."""
    code, lines, started = result
    assert (code, started) == (2, [])
    assert "Traceback" not in lines
    assert all(line.startswith("dreamserve: ") for line in lines.splitlines())
    return [word for word in words if word not in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file"]),
        (b"", ["is empty"]),
        (b"{", ["is no YAML", "line 1"]),
        (b"- a", ["applications"]),
        (b"text", ["applications"]),
        (b"\xff\xfe", ["UTF-8"]),
        (b"applications: []", ["there is no application"]),
        (b"aplications: [{args: {}}]", ["aplications", "did you mean applications?"]),
        (b"applications: [{arg: {}}]", ["applications.0.arg", "did you mean args?"]),
        (b"applications: [{args: [1]}]", ["not a mapping"]),
        (b"applications: [{args: {jobs: {hold: 1}}}]", ["jobs.hold", "did you mean hold_s?"]),
        (b"applications: [{args: {job: {}}}]", ["job:", "did you mean jobs?"]),
        (
            b"applications: [{args: {jobs: {temp_ttl_s: 1}}}]",
            ["jobs.temp_ttl_s", "did you mean storage.temp_ttl_s?"],
        ),
        (b"applications: [{args: {jobs: {hold_s: soon}}}]", ["jobs.hold_s: must be a number"]),
        (b"applications: [{args: {jobs: 7}}]", ["jobs: must be an object"]),
    ],
    ids=[
        *("missing", "empty", "no-yaml", "list", "text", "no-text", "no-application", "file-key"),
        *("application-key", "args", "setting", "section", "elsewhere", "value", "kind"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_config_file_that_is_wrong(call, folder, command, content, words):
    if command[0] == "top" and content is None:
        pytest.skip("looks for a cluster without one")
    path = folder / "serve.yaml"
    if content is not None:
        path.write_bytes(content)
    assert told(call(*command, config=path), "serve.yaml", *words) == []


def test_secret_is_not_repeated(call, write):
    path = write(auth={"admin_key": "short-secret"}, database={"url": ["a-password"]})
    result = call("run", config=path)
    assert told(result, "auth.admin_key: must have at least 16") == []
    assert "short-secret" not in result[1]
    assert "a-password" not in result[1]


def test_variable_of_no_setting(call, write, monkeypatch):
    monkeypatch.setenv("DREAMSERVE_JOBBS__HOLD_S", "3")
    assert told(call("run", config=write()), "did you mean DREAMSERVE_JOBS__HOLD_S?") == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"hot.yaml": "id: hot\n"}, ["hot.yaml", "source: is missing", "kinds: is missing"]),
        ({"hot.yaml": "{"}, ["hot.yaml", "is no YAML"]),
        ({"hot.yaml": ""}, ["hot.yaml", "is empty"]),
        (
            {"hot.yaml": "id: hot\nsource: hot\nkinds: [text2img]\nplacment: own\n"},
            ["placment", "did you mean placement?"],
        ),
        (
            {"two.yaml": "id: hot\nsource: hot\nkinds: [text2img]\n"},
            ["two models have the id 'hot'"],
        ),
        (
            {"hot.yaml": "id: hot\nsource: gone\nkinds: [text2img]\n"},
            ["hot has no weights", "gone does not exist"],
        ),
        ({"hot.yaml": None}, ["no model files in", "models"]),
    ],
    ids=["fields", "no-yaml", "empty", "unknown", "twice", "no-weights", "no-files"],
)
def test_catalogue_that_is_wrong(call, write, folder, files, words):
    for name, content in files.items():
        path = folder / "models" / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
    assert told(call("run", "--port", str(free_port()), config=write()), "catalogue", *words) == []


def test_all_that_is_wrong_is_told_at_once(call, write, folder):
    (folder / "file").write_text("in the way")
    path = write(
        data_dir="file/var",
        engine={"cache_dir": "cache", "expander": "nowhere"},
        hints={"depth": "nowhere"},
        safety={"checkpoint": "none"},
        http={"styles": "styles.yaml"},
        catalogue={"path": "empty", "cache_dir": "weights"},
    )
    result = call("run", "--port", str(free_port()), config=path)
    settings = ("data_dir", "hints.depth", "engine.expander", "safety.checkpoint", "http.styles")
    settings += ("catalogue",)
    assert told(result, *(f"dreamserve: {name}" for name in settings), "database") == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_in_use(call, write, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = str(server.getsockname()[1])
        result = call("run", "--host", host, "--port", port, config=write())
    assert told(result, f"cannot listen on {host} port {port}") == []


def test_host_of_nobody(call, write):
    assert told(call("run", "--host", "no host", config=write()), "cannot listen on no host") == []


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter2@127.0.0.1:{port}/d", "sqlite:///{folder}/models", "oracle://x"],
    ids=["no-server", "a-folder", "foreign"],
)
@pytest.mark.parametrize("command", ["run", "db-status", "db-upgrade", "db-check", "keys-list"])
def test_database_that_does_not_answer(call, write, folder, command, url):
    url = url.format(folder=folder, port=free_port())
    command = ["run", "--port", str(free_port())] if command == "run" else COMMANDS[command]
    result = call(*command, config=write(database={"url": url, "busy_timeout_s": 2}))
    assert told(result) == []
    assert len(result[1].splitlines()) == 1
    assert "hunter2" not in result[1]


def test_service_in_which_nothing_is_wrong_is_started(call, write, folder, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    serving.exec_service(write(), "127.0.0.1", free_port())
    assert len(started) == 1
    assert list(preflight.problems(config_file.read_file(folder / "serve.yaml").settings)) == []


@pytest.mark.parametrize("command", ["status", "reload"])
def test_model_that_nobody_knows(call, write, command):
    code, lines, _ = call("models", command, "hott", config=write())
    assert (code, lines.splitlines()) == (1, ["no model has this id"])


def test_keys_of_the_file_are_those_of_ray_serve():
    fields = {
        "ServeDeploySchema": config_file.FILE_KEYS,
        "HTTPOptionsSchema": config_file.HTTP_KEYS,
        "ServeApplicationSchema": config_file.APPLICATION_KEYS,
    }
    for name, known in fields.items():
        assert getattr(schema, name).model_fields.keys() == known
