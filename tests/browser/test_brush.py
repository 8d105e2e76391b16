"""The mask of the playground, drawn in a real browser over a server without models."""

import numpy as np
import pytest

from tests.browser.conftest import drag, open_playground, pixels
from tests.browser.fake_server import png
from tests.browser.playing import INPAINT, choose, mask_of, notices

pytestmark = pytest.mark.browser


def test_stroke_is_white_where_it_went_and_black_elsewhere(ready, server):
    drag(ready, (0.3, 0.5), (0.7, 0.5))
    mask = mask_of(ready, server)
    assert mask.shape == (512, 512)
    rows, columns = np.nonzero(mask > 127)
    middle, half = 256, 32  # the brush is 64 wide
    assert abs(columns.min() - (0.3 * 512 - half)) < 6
    assert abs(columns.max() - (0.7 * 512 + half)) < 6
    assert abs(rows.min() - (middle - half)) < 6
    assert abs(rows.max() - (middle + half)) < 6


def test_brush_is_as_wide_as_it_is_set(ready, server):
    ready.locator("#size").fill("120")
    drag(ready, (0.5, 0.5), (0.5, 0.5))
    rows, columns = np.nonzero(mask_of(ready, server) > 127)
    assert (np.ptp(rows), np.ptp(columns)) == (pytest.approx(120, abs=3), pytest.approx(120, abs=3))


def test_eraser_undo_redo_invert_and_clear(ready, server):
    counts = []

    def count():
        counts.append(int((mask_of(ready, server) > 127).sum()))
        ready.locator("#back").click()

    drag(ready, (0.2, 0.5), (0.8, 0.5))
    count()
    ready.keyboard.press("e")
    drag(ready, (0.5, 0.3), (0.5, 0.7))
    count()
    ready.locator("#undo").click()
    count()
    ready.locator("#redo").click()
    count()
    ready.locator("#invert").click()
    count()
    whole, cut, undone, redone, inverted = counts
    assert cut < whole
    assert (undone, redone) == (whole, cut)
    assert abs(inverted - (512 * 512 - cut)) < 0.02 * cut  # but for grey edges
    ready.locator("#clear").click()
    ready.locator("#paint").click()
    assert "Nothing is masked yet" in notices(ready)


@pytest.mark.parametrize(
    ("tool", "share"), [("r", 0.4 * 0.3), ("l", 0.4 * 0.3 / 2)], ids=["rectangle", "lasso"]
)
def test_areas_are_filled(ready, server, tool, share):
    ready.keyboard.press(tool)
    if tool == "r":
        drag(ready, (0.7, 0.6), (0.3, 0.3))
    else:
        drag(ready, (0.3, 0.3), (0.7, 0.3), (0.3, 0.6))
    mask = mask_of(ready, server)
    assert abs((mask > 127).mean() - share) < 0.01


def test_soft_brush_fades(ready, server):
    ready.locator("#hardness").fill("0")
    drag(ready, (0.5, 0.5), (0.5, 0.52))
    mask = mask_of(ready, server)
    row = mask[260, 256:292]
    assert row[0] > 230
    assert row[-1] == 0
    assert (np.diff(row) <= 2).all()


def test_keyboard_alone_draws_a_mask(ready, server):
    ready.locator("#canvas").focus()
    ready.keyboard.press("Space")
    for _ in range(2):
        ready.keyboard.press("Shift+ArrowRight")
    ready.keyboard.press("Space")
    assert ready.locator("#status").inner_text() == "Pen up."
    mask = mask_of(ready, server)
    columns = np.nonzero(mask[256] > 127)[0]
    assert (columns.min(), columns.max()) == (pytest.approx(224, abs=2), pytest.approx(416, abs=2))


def test_zoom_and_pan_move_the_view_and_not_the_mask(ready, server):
    ready.locator("#zoom-in").click()
    ready.keyboard.press("h")
    drag(ready, (0.5, 0.5), (0.6, 0.55))
    ready.keyboard.press("b")
    assert ready.locator("#undo").is_disabled()
    ready.locator("#zoom-fit").click()
    drag(ready, (0.5, 0.5), (0.5, 0.5))
    rows, columns = np.nonzero(mask_of(ready, server) > 127)
    assert (rows.mean(), columns.mean()) == (pytest.approx(256, abs=4), pytest.approx(256, abs=4))


def test_mask_is_saved_and_loaded_again(ready, server, tmp_path):
    drag(ready, (0.3, 0.5), (0.7, 0.5))
    with ready.expect_download() as saving:
        ready.locator("#save-mask").click()
    saving.value.save_as(tmp_path / "mask.png")
    ready.locator("#undo").click()  # there is something to redo, until the mask is loaded
    ready.locator("#redo:not([disabled])").wait_for()
    ready.set_input_files("#mask-file", tmp_path / "mask.png")
    ready.locator("#redo[disabled]").wait_for()
    loaded = mask_of(ready, server)
    assert np.array_equal(loaded, pixels((tmp_path / "mask.png").read_bytes())[:, :, 0])


def test_mask_of_another_size_is_stretched_and_that_is_said(ready):
    choose(ready, "m.png", png("#fff", (100, 50)), "#mask-file")
    ready.get_by_text("The mask is 100 \u00d7 50; it was stretched to 512 \u00d7 512.").wait_for()


def test_mask_drawn_on_nothing_is_told(page, server):
    open_playground(page, server.url)
    choose(page, "m.png", png(), "#mask-file")
    page.get_by_text("There is no picture yet that this could be the mask of.").wait_for()
    page.locator("#prompt").fill("a star")
    page.locator("#paint").click()
    page.get_by_text("There is no picture yet. Drop one, or take an example.").wait_for()
    assert not [path for path, _ in server.calls if path == INPAINT]
