"""The playground under fingers, on a phone."""

import numpy as np
import pytest

from tests.browser.conftest import TO_SCREEN, WAIT_MS, open_playground, paint, pixels, size, watch

pytestmark = pytest.mark.browser
INPAINT = "/api/v4/dreambooth/inpaint"


@pytest.fixture
def phone(chromium, server):
    """The playground with an example picture, on a screen that is touched."""
    context = chromium.new_context(
        viewport=size("phone"), device_scale_factor=3, has_touch=True, is_mobile=True
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    problems = watch(page)
    open_playground(page, server.url)
    page.locator("#examples button").first.tap()
    page.locator("#canvas").wait_for()
    yield page
    context.close()
    assert problems == []


def touch(page, *fingers: list[tuple[float, float]]) -> None:
    """Move fingers over the picture at the same time; points are shares of it."""
    session = page.context.new_cdp_session(page)
    paths = [[page.evaluate(TO_SCREEN, list(point)) for point in path] for path in fingers]

    def send(kind, points):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    first, *rest = zip(*paths, strict=True)
    send("touchStart", first)
    for points in rest:
        send("touchMove", points)
    send("touchEnd", [])
    session.detach()


def mask_of(page, server) -> np.ndarray:
    paint(page)
    (body,) = [body for path, body in server.calls if path == INPAINT]
    return pixels(body["mask_image"])[:, :, 0]


def is_seen(page, selector: str) -> bool:
    """Whether a thing is on the screen, without scrolling."""
    return page.locator(selector).evaluate(
        """one => {
          const box = one.getBoundingClientRect();
          return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;
        }"""
    )


def test_what_is_told_is_brought_onto_the_screen(phone):
    phone.locator("summary", has_text="More").scroll_into_view_if_needed()
    phone.locator("#paint").tap()
    assert is_seen(phone, ".notice.error")  # nothing is masked yet


def test_what_is_painted_is_brought_onto_the_screen(phone, server):
    touch(phone, [(0.3, 0.5), (0.5, 0.5), (0.7, 0.5)])
    phone.locator("summary", has_text="More").scroll_into_view_if_needed()
    server.service.is_stuck = True
    phone.locator("#paint").tap()
    phone.get_by_text("Waiting").first.wait_for()
    assert is_seen(phone, "#progress")
    server.service.is_stuck = False
    phone.locator("#result-tools").wait_for()
    assert is_seen(phone, "#after")


def test_stroke_is_kept_from_the_browser(phone):
    """Else one that ends in movement begins a fling, and a third of the next taps only stop it."""
    phone.evaluate("() => addEventListener('touchmove', (event) => (window.stroke = event))")
    touch(phone, [(0.3, 0.5), (0.5, 0.5), (0.7, 0.5)])
    assert phone.evaluate("window.stroke.defaultPrevented")


def test_finger_draws_where_it_went(phone, server):
    touch(phone, [(0.3, 0.5), (0.5, 0.5), (0.7, 0.5)])
    rows, columns = np.nonzero(mask_of(phone, server) > 127)
    assert abs(columns.min() - (0.3 * 512 - 32)) < 6
    assert abs(columns.max() - (0.7 * 512 + 32)) < 6
    assert abs(rows.mean() - 256) < 4


def test_two_fingers_zoom_and_draw_nothing(phone, server):
    touch(phone, [(0.45, 0.5), (0.3, 0.5), (0.1, 0.5)], [(0.55, 0.5), (0.7, 0.5), (0.9, 0.5)])
    assert phone.locator("#undo").is_disabled()
    touch(phone, [(0.5, 0.5), (0.5, 0.5)])  # now the picture is large under the brush
    rows, columns = np.nonzero(mask_of(phone, server) > 127)
    assert abs(columns.mean() - 256) < 24
    assert abs(rows.mean() - 256) < 24
