"""Chromium, a server without models, and one with the demo models; all skipped without Chromium."""

import base64
import contextlib
import importlib.util
import io
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from serve_app.cli.demo import free_port
from serve_app.cli.serving import service as running_service
from tests.browser.fake_server import ADMIN_KEY, FakeServer

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"small": (1040, 720), "desktop": (1440, 900), "tablet": (834, 1112), "phone": (390, 844)}
START_TIMEOUT_S = 300.0
WAIT_MS = 60_000  # for what a free machine shows at once


def pytest_runtest_setup(item):
    """Say why nothing is tested."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright: pip install playwright")
    if not any(shutil.which(name) for name in BROWSERS):
        pytest.skip("no Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests; each has a context of its own."""
    with launched() as browser:
        yield browser


@contextlib.contextmanager
def launched():
    """Start the Chromium of this machine, not one that Playwright downloads."""
    from playwright.sync_api import sync_playwright

    path = next(found for name in BROWSERS if (found := shutil.which(name)))
    arguments = ["--disable-dev-shm-usage", "--disable-gpu"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _fake_server():
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def server(_fake_server):
    """A server that paints by being looked at."""
    _fake_server.reset()
    return _fake_server


@pytest.fixture
def context(chromium):
    """A browser that has been nowhere."""
    context = chromium.new_context(viewport=size("small"))
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context):
    """A tab. Whatever goes wrong in it is an error of the test."""
    page = context.new_page()
    problems = watch(page)
    yield page
    assert problems == []


def watch(page) -> list[str]:
    """Collect the errors of a tab; answers with an error code are no errors of the page."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def note(message):
        if message.type == "error" and "Failed to load resource" not in message.text:
            problems.append(message.text)

    page.on("console", note)
    return problems


def size(name: str) -> dict[str, int]:
    """A viewport as Playwright wants it."""
    width, height = SIZES[name]
    return {"width": width, "height": height}


@dataclass(frozen=True)
class Running:
    """The service with the demo models. start_s: seconds until it was what was waited for."""

    url: str
    start_s: float


@contextlib.contextmanager
def running(folder: Path, is_up: Callable[[str], bool] | None = None):
    """Run the service as `make run` does, on a port of its own, with an operator's key.

    is_up: says of an address whether to go on; by default when every model can answer.
    """
    is_up = is_up or is_ready
    port = free_port()
    settings = {
        "DREAMSERVE_DATA_DIR": str(folder / "var"),
        "DREAMSERVE_AUTH__ADMIN_KEY": ADMIN_KEY,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("RAY_AUTH_MODE", raising=False)
        patch.chdir(ROOT)
        begun = time.monotonic()
        url = f"http://127.0.0.1:{port}/"
        with running_service(ROOT / "configs" / "dev.yaml", "127.0.0.1", port, log) as child:
            while not is_up(url):
                assert child.poll() is None, (folder / "log").read_text()[-3000:]
                assert time.monotonic() - begun < START_TIMEOUT_S, "it did not start"
                time.sleep(0.1)
            yield Running(url, time.monotonic() - begun)


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One service for all tests."""
    with running(tmp_path_factory.mktemp("service")) as found:
        yield found


def is_ready(url: str) -> bool:
    """Whether every model can answer."""
    return answers(f"{url}health/ready")


def answers(url: str) -> bool:
    """Whether there is anything at an address."""
    try:
        return httpx2.get(url, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def pixels(picture: bytes | str) -> np.ndarray:
    """The RGB values of a file, of a data URI, or of base64."""
    data = base64.b64decode(picture.split(",")[-1]) if isinstance(picture, str) else picture
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def open_playground(page, url: str) -> None:
    """Open it and wait until it knows the models."""
    page.goto(url)
    page.locator("#modes input").first.wait_for(state="attached")


def take_example(page, number: int = 0) -> None:
    page.locator("#examples button").nth(number).click()
    page.locator("#canvas").wait_for()


def drag(page, *points: tuple[float, float]) -> None:
    """Draw over the canvas; points are shares of the picture, whatever the zoom."""
    places = [page.evaluate(TO_SCREEN, list(point)) for point in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


# The example pictures are square, and fitted into the canvas.
TO_SCREEN = """([x, y]) => {
  const box = document.getElementById("canvas").getBoundingClientRect();
  const side = Math.min(box.width, box.height) - 24;
  return [
    box.x + (box.width - side) / 2 + x * side,
    box.y + (box.height - side) / 2 + y * side,
  ];
}"""


def paint(page) -> None:
    """Paint and wait for the result."""
    page.locator("#paint").click()
    page.locator("#result").wait_for()
    page.locator("#result-tools").wait_for()


@pytest.fixture
def ready(page, server):
    """The playground with an example picture."""
    open_playground(page, server.url)
    take_example(page)
    return page
