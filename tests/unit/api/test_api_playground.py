"""The pages for browsers, without a browser: what is served, and with which rights."""

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest

from serve_app import errors
from serve_app.api import create_api
from serve_app.config import HttpConfig, JobsConfig
from serve_app.playground import load
from serve_app.testing.service import FakeService
from tests.unit.api.conftest import Api

ROOT = Path(__file__).parents[3]
PAGES = ["/", "/status"]


def policy(answer) -> dict[str, list[str]]:
    directives = answer.headers["content-security-policy"].split("; ")
    return {name: values for name, *values in (part.split() for part in directives)}


@pytest.mark.parametrize("path", PAGES)
async def test_page_may_load_only_what_this_server_sends(api, path):
    answer = await api.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    rights = policy(answer)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert rights["default-src"] == ["'none'"]
    assert rights["script-src"] == rights["style-src"] == ["'self'"]
    assert rights["img-src"] == ["'self'", "data:", "blob:", "http://testserver"]
    assert rights["connect-src"] == ["'self'", "http://testserver"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_page_may_load_results_from_the_object_store(api, monkeypatch):
    async def output_url(_key, _base_url):
        return "https://files.example:8443/bucket/a.png?signature=b"

    monkeypatch.setattr(api.service, "output_url", output_url, raising=False)
    assert policy(await api.http.get("/"))["img-src"][-1] == "https://files.example:8443"


async def test_page_is_there_while_the_object_store_is_not(api, monkeypatch):
    async def output_url(_key, _base_url):
        raise errors.StorageUnavailable("no credentials")

    monkeypatch.setattr(api.service, "output_url", output_url, raising=False)
    assert policy(await api.http.get("/"))["connect-src"] == ["'self'"]


@pytest.mark.parametrize("path", PAGES)
async def test_all_that_a_page_names_is_served_and_nothing_is_written_into_it(api, path):
    """Scripts and styles in a page would need `unsafe-inline`; other hosts must not be asked."""
    page = (await api.http.get(path)).text
    assert (
        re.findall(
            r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|https?://(?!www\.w3\.org)", page
        )
        == []
    )
    named = [urljoin(path, link) for link in re.findall(r'(?:src|href)="(playground/[^"]+)"', page)]
    assert named
    while named:
        link = named.pop()
        answer = await api.http.get(link)
        assert answer.status_code == 200, link
        if link.endswith((".js", ".css")):
            found = re.findall(r'from "\./([^"]+)"|url\("([^"]+)"\)', answer.text)
            named += [urljoin(link, first or second) for first, second in found]


def test_every_file_of_the_pages_is_used_by_one():
    texts = {name: file.data.decode() for name, file in load().items() if name[-6:] != ".woff2"}
    text = "".join(texts.values())
    unused = {name for name in load() if f'{name}"' not in text}
    assert unused == {"index.html", "status.html", "inter-license.txt"}


async def test_file_that_a_browser_has_is_not_sent_again(api):
    first = await api.http.get("/playground/app.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    again = await api.http.get(
        "/playground/app.js", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/playground/none.js", "/playground/..%2fassets.py", "/playground/"]
)
async def test_nothing_else_is_served_beside_the_files(api, path):
    answer = await api.http.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "no_such_call")


@pytest.mark.parametrize("path", [*PAGES, "/playground/app.js"])
async def test_setting_turns_the_pages_off(path):
    http = HttpConfig(playground=False)
    api = Api(None, create_api(FakeService([]), http, JobsConfig()))
    async with api.http as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "no_such_call")


async def test_pages_are_no_part_of_the_described_api(api):
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    assert not {"/", "/status", "/playground/{name}"} & paths.keys()


def test_wheel_holds_the_files():
    """setuptools puts into it what `package-data` says."""
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"serve_app.playground" = ["static/*"]' in listed
    assert all(file.is_file() for file in (ROOT / "serve_app/playground/static").iterdir())
