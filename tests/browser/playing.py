"""What tests of the playground do with its page, and read from it."""

import time
from collections.abc import Callable

import numpy as np

from tests.browser.conftest import WAIT_MS, paint, pixels

INPAINT = "/api/v4/dreambooth/inpaint"


def sent(server, path: str = INPAINT) -> dict:
    """The body of the last call of a path."""
    return [body for called, body in server.calls if called == path][-1]


def choose(page, name: str, data: bytes, field: str = "#file") -> None:
    page.set_input_files(field, {"name": name, "mimeType": "image/png", "buffer": data})


def notices(page) -> str:
    return page.locator("#notices").inner_text()


def until(page, is_so: Callable[[], bool]) -> None:
    """Wait by hand: the page's policy keeps Playwright's own waiting from evaluating text."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not is_so():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def is_red(page) -> bool:
    """Whether the middle of the canvas shows a red picture."""
    red, green, *_ = page.evaluate(
        """() => {
          const canvas = document.getElementById("canvas");
          const middle = [canvas.width / 2, canvas.height / 2];
          return [...canvas.getContext("2d").getImageData(...middle, 1, 1).data];
        }"""
    )
    return red > 200 and green < 60


def mask_of(page, server) -> np.ndarray:
    """The mask as it is sent."""
    paint(page)
    return pixels(sent(server)["mask_image"])[:, :, 0]
