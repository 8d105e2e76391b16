"""`dreamserve init`, `--version`, `doctor`: what somebody meets who has installed it just now."""

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import yaml
from pydantic import BaseModel
from sqlalchemy import create_engine
from typer.testing import CliRunner

from serve_app import __version__
from serve_app.cli import bundle, doctor, init, preflight, serving
from serve_app.cli.main import app
from serve_app.config import AppConfig, DatabaseConfig
from serve_app.config.serve_file import read_file
from serve_app.database import migrate
from tests.unit.database.test_migrate import downgrade

ALL = re.compile(r"^( *)# (?!#)", flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_folder_for_development_can_be_served(tmp_path):
    done = CliRunner().invoke(app, ["init", "here"])
    assert done.exit_code == 0
    config = tmp_path / "here" / "configs" / "dev.yaml"
    assert str(config.relative_to(tmp_path)) in done.output
    settings = read_file(config).settings
    assert settings.auth.mode == "open"
    in_folder = settings.model_copy(
        update={
            "catalogue": settings.catalogue.model_copy(
                update={"path": config.parent / "models", "cache_dir": tmp_path / "w"}
            )
        }
    )
    assert list(preflight.problems(in_folder)) == []


@pytest.mark.parametrize("is_prod", [False, True], ids=["dev", "prod"])
def test_every_setting_is_there_with_its_default(tmp_path, is_prod):
    (config, *_) = init.write(tmp_path, is_prod=is_prod)
    written = read_file(config).settings
    # With the signs removed all defaults are said, which must change nothing; what a section needs
    # that is left out by default (a bucket's name) has none.
    text = ALL.sub(r"\1", config.read_text())
    values = yaml.safe_load(text.partition("applications:")[2].partition("args:")[2])
    assert values["storage"].pop("s3").keys() >= {"bucket", "region", "timeout_s"}
    assert values.keys() == AppConfig.model_fields.keys()
    assert values.pop("root_dir") is None
    assert AppConfig.model_validate(values) == written
    for name, field in AppConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            assert values[name].keys() >= field.annotation.model_fields.keys() - {"s3"}


@pytest.fixture
def httpserver_of():
    """Serve one answer for all calls: that of a store without the bucket, or an empty file."""
    servers = []

    def serve(status):
        text = b"" if status == httpx2.codes.OK else b"<Error><Code>NoSuchBucket</Code></Error>"

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET  # http.server's name

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_nothing_is_overwritten(tmp_path):
    init.write(tmp_path)
    mine = tmp_path / "configs" / "models" / "demo.yaml"
    mine.write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        init.write(tmp_path)
    (tmp_path / "configs" / "dev.yaml").unlink()
    init.write(tmp_path)
    assert mine.read_text() == "mine"


def test_command_in_an_empty_folder_gets_the_demo(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(serving, "exec_service", lambda *given, **_: started.append(given))
    done = CliRunner().invoke(app, ["run"])
    assert (done.exit_code, len(started)) == (0, 1)
    assert "wrote configs/dev.yaml" in done.stderr
    assert list(preflight.problems(read_file(tmp_path / "configs" / "dev.yaml").settings)) == []
    assert CliRunner().invoke(app, ["run"]).stderr == ""


def test_demo_is_beside_the_code_or_inside_of_the_package():
    for name in ("checkpoints/demo-inpaint", "examples/inpaint/request.json", "configs/models"):
        assert (bundle.folder() / name).exists()


def test_version():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"dreamserve {__version__}\n")


def test_shells_can_complete():
    # What the installed script asks at each Tab. `--show-completion` looks for the shell above the
    # tests, which need not be there.
    asked = {
        "_DREAMSERVE_COMPLETE": "complete_bash",
        "COMP_WORDS": "dreamserve mod",
        "COMP_CWORD": "1",
    }
    done = CliRunner().invoke(app, [], prog_name="dreamserve", env=asked)
    assert (done.exit_code, done.output.split()) == (0, ["models"])


def test_doctor_finds_nothing_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_LOW_BYTES", 0)
    init.write(tmp_path)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert f"Python {sys.version.split()[0]}" in done.output
    assert "no service answers at http://127.0.0.1:8000" in done.output
    assert "no tables yet, a service makes them" in done.output
    assert "wrong" not in done.output


def test_doctor_names_what_is_wrong(tmp_path):
    init.write(tmp_path)
    for file in (tmp_path / "configs" / "models").glob("*.yaml"):
        file.unlink()
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert re.search("^wrong +catalogue: no model files", done.output, flags=re.MULTILINE)
    gone = CliRunner().invoke(app, ["doctor", "--config", "none.yaml"])
    assert (gone.exit_code, "No such file" in gone.output) == (1, True)


@pytest.mark.parametrize("status", [200, 404])
def test_doctor_asks_store_and_collector(tmp_path, httpserver_of, status):
    init.write(tmp_path)
    url = httpserver_of(status)
    given = {
        "DREAMSERVE_STORAGE__BACKEND": "s3",
        "DREAMSERVE_STORAGE__S3__BUCKET": "pictures",
        "DREAMSERVE_STORAGE__S3__ENDPOINT_URL": url,
        "DREAMSERVE_STORAGE__S3__ACCESS_KEY_ID": "a",
        "DREAMSERVE_STORAGE__S3__SECRET_ACCESS_KEY": "b",
        "DREAMSERVE_LOGGING__TRACES_URL": f"{url}/v1/traces",
    }
    done = CliRunner().invoke(app, ["doctor"], env=given)
    wrong = [line for line in done.output.splitlines() if line.startswith("wrong")]
    if status == httpx2.codes.OK:
        assert "storage: bucket pictures answers" in done.output
        assert f"logging.traces_url: {url}/v1/traces takes spans" in done.output
    else:
        (store, collector) = (line for line in wrong if "GiB" not in line)
        assert "storage: bucket pictures: " in store
        assert "NoSuchBucket" in store
        assert f"logging.traces_url: {url}/v1/traces: " in collector
        assert "404" in collector


@pytest.mark.parametrize(("status", "is_wrong"), [(200, False), (503, True)])
def test_doctor_asks_the_service(monkeypatch, status, is_wrong, tmp_path):
    (config, *_) = init.write(tmp_path)
    transport = doctor.httpx2.MockTransport(lambda _: doctor.httpx2.Response(status, text="told"))
    real = doctor.httpx2.Client
    monkeypatch.setattr(
        doctor.httpx2, "Client", lambda **options: real(transport=transport, **options)
    )
    finding = doctor._service(read_file(config))
    assert (finding.is_wrong, "told" in finding.text) == (is_wrong, True)


def test_doctor_changes_no_tables(tmp_path):
    init.write(tmp_path)
    config = DatabaseConfig(url=f"sqlite:///{tmp_path}/old.db")
    migrate.upgrade(config)
    with create_engine(f"sqlite:///{tmp_path}/old.db").begin() as connection:
        downgrade(connection, "0005")
    settings = read_file(tmp_path / "configs" / "dev.yaml").settings
    settings = settings.model_copy(update={"database": config})
    assert list(preflight.problems(settings, migrate.examine)) == []
    assert migrate.status(config).version == "0005"
    assert list(preflight.problems(settings)) == []
    assert migrate.status(config).version != "0005"
