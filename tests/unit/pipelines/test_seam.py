"""The tone of what was painted: as far as the kept pixels say, and no further."""

import numpy as np
from PIL import Image

from serve_app.pipelines.compose import Canvas, paste
from serve_app.pipelines.seam import tone_offset

BOX = (24, 16, 72, 80)


def _mask(white: tuple[int, int, int, int] = BOX) -> Image.Image:
    mask = Image.new("L", (100, 92), 0)
    mask.paste(255, white)
    return mask


def _flat(level: int) -> np.ndarray:
    return np.full((92, 100, 3), level, np.float32)


def test_tone_offset_even_tint_is_taken_back_in_the_mask_too() -> None:
    offset = tone_offset(_flat(120), _flat(113), _mask())
    assert np.abs(offset - 7).max() < 0.01


def test_tone_offset_slope_goes_on_across_the_mask() -> None:
    slope = np.broadcast_to(np.linspace(0, 10, 100, dtype=np.float32)[None, :, None], (92, 100, 3))
    offset = tone_offset(_flat(120) + slope, _flat(120), _mask())
    assert np.abs(offset - slope).max() < 2.5  # from columns 24 and 71, 5 levels apart


def test_tone_offset_another_object_beside_the_mask_does_not_bleed_in() -> None:
    result = _flat(120)
    result[16:80, 80:] = 30
    assert not tone_offset(_flat(120), result, _mask()).any()


def test_tone_offset_nothing_kept_changes_nothing() -> None:
    assert not tone_offset(_flat(120), _flat(113), _mask((0, 0, 100, 92))).any()


def test_paste_with_match_tone_leaves_no_box_and_keeps_the_rest_exact() -> None:
    init = Image.new("RGB", (100, 92), (120, 130, 140))
    tinted = np.full((92, 100, 3), (113, 131, 150), np.uint8)
    canvas = Canvas(init, _mask(), (0, 0, 100, 92))
    assert (paste(tinted, canvas, 0)[40, 40] == (113, 131, 150)).all()
    assert (paste(tinted, canvas, 0, match_tone=True) == np.asarray(init)).all()
