"""Where the page shows previews: over the picture, or alone where they have another shape."""

import base64
import io
import threading

import pytest
from PIL import Image

from tests.browser.conftest import drag, open_playground, take_example
from tests.browser.playing import is_red, until

pytestmark = pytest.mark.browser


def preview(size: tuple[int, int]) -> dict[str, str]:
    file = io.BytesIO()
    Image.new("RGB", size, "#f00").save(file, "JPEG")
    return {"image": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"}


@pytest.mark.parametrize(
    ("size", "place"),
    [((256, 256), "#canvas"), ((255, 256), "#canvas"), ((256, 128), "#result")],
    ids=["same", "rounded", "other"],
)
def test_preview_is_never_stretched(page, server, size, place):
    goes_on = threading.Event()
    server.events = [[("started", {}), ("preview", preview(size)), goes_on, ("done", None)]]
    open_playground(page, server.url)
    take_example(page)
    drag(page, (0.4, 0.5), (0.6, 0.5))
    page.locator("#paint").click()
    if place == "#canvas":
        until(page, lambda: is_red(page))
    else:
        page.locator(place).wait_for()
    assert page.locator("#progress").is_visible()
    assert page.locator(place).is_visible()
    assert page.locator("#canvas").is_visible() is (place == "#canvas")
    goes_on.set()
    page.locator("#result-tools").wait_for()
