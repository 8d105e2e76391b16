"""`dreamserve open`: the address, and what it says where nobody answers."""

import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.main import app


@pytest.fixture
def opened(monkeypatch):
    """Addresses that a browser was asked to open."""
    urls = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(urls.append(url)) or True)
    return urls


class Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Handler, "status", 200)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def config(folder, port, host="127.0.0.1", prefix="/", **http):
    file = folder / "serve.yaml"
    args = {"root_dir": str(folder), "http": http}
    application = {"route_prefix": prefix, "args": args}
    settings = {"http_options": {"host": host, "port": port}, "applications": [application]}
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def run(*arguments):
    return CliRunner().invoke(app, ["open", *arguments])


@pytest.mark.parametrize(
    ("host", "prefix"), [("127.0.0.1", "/"), ("0.0.0.0", "/"), ("127.0.0.1", "/pictures")]
)
def test_address_is_printed_and_opened(tmp_path, server, opened, host, prefix):
    done = run("--config", config(tmp_path, server.server_port, host, prefix))
    url = f"http://127.0.0.1:{server.server_port}{prefix.rstrip('/')}/"
    assert (done.exit_code, done.stdout.strip(), opened) == (0, url, [url])


def test_address_is_only_printed_when_asked(tmp_path, server, opened):
    done = run("--config", config(tmp_path, 1), "--port", str(server.server_port), "--print")
    assert (done.exit_code, opened) == (0, [])
    assert done.stdout.strip() == f"http://127.0.0.1:{server.server_port}/"


def test_public_address_is_the_one_for_people(tmp_path, server, opened):
    public = f"http://localhost:{server.server_port}/pictures"
    done = run("--config", config(tmp_path, 1, public_url=public))
    assert (done.exit_code, opened) == (0, [f"{public}/"])


def test_nobody_answers(tmp_path, server, opened):
    port = server.server_port
    server.server_close()
    done = run("--config", config(tmp_path, port))
    assert (done.exit_code, opened) == (1, [])
    assert "nobody answers" in done.stderr


def test_playground_that_is_turned_off_is_not_opened(tmp_path, server, opened, monkeypatch):
    monkeypatch.setattr(Handler, "status", 404)
    done = run("--config", config(tmp_path, server.server_port))
    assert (done.exit_code, opened) == (1, [])
    assert "http.playground" in done.stderr
