"""What tests of the playground do with its page, and read from it."""

import numpy as np

from tests.browser.conftest import paint, pixels

INPAINT = "/api/v4/dreambooth/inpaint"


def sent(server, path: str = INPAINT) -> dict:
    """The body of the last call of a path."""
    return [body for called, body in server.calls if called == path][-1]


def choose(page, name: str, data: bytes, field: str = "#file") -> None:
    page.set_input_files(field, {"name": name, "mimeType": "image/png", "buffer": data})


def notices(page) -> str:
    return page.locator("#notices").inner_text()


def mask_of(page, server) -> np.ndarray:
    """The mask as it is sent."""
    paint(page)
    return pixels(sent(server)["mask_image"])[:, :, 0]
