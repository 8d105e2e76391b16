import io

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.pipelines.compose import (
    Box,
    Canvas,
    crop_box,
    encode,
    open_canvas,
    paste,
    touched_cells,
)
from serve_app.types import GenerationSpec, Kind, Picture, PreparedImages


def mask_of(width: int, height: int, white: Box) -> Image.Image:
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, white)
    return mask


def spec(kind: Kind = Kind.INPAINT, **changes: object) -> GenerationSpec:
    values: dict[str, object] = {
        "model_id": "m",
        "kind": kind,
        "prompt": "",
        "height": 128,
        "width": 192,
        "steps": 1,
        "scheduler": "DDIMScheduler",
        "seed": 0,
    }
    return GenerationSpec.model_validate(values | changes)


def inputs(white: Box = (8, 8, 40, 40)) -> PreparedImages:
    init = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    return PreparedImages(encode(init), encode(np.asarray(mask_of(192, 128, white))))


@pytest.mark.parametrize(
    ("size", "white", "box"),
    [
        pytest.param((1024, 1024), (450, 450, 550, 550), (240, 240, 752, 752), id="centred"),
        pytest.param((1024, 1024), (0, 900, 50, 1024), (0, 512, 512, 1024), id="at-the-corner"),
        pytest.param((1024, 768), (100, 100, 700, 200), (48, 0, 752, 512), id="wide-mask"),
        pytest.param((512, 512), (10, 10, 20, 20), (0, 0, 512, 512), id="frame-is-native"),
        pytest.param((256, 1024), (10, 10, 20, 20), (0, 0, 256, 512), id="narrow-frame"),
        pytest.param((1000, 1000), (0, 0, 1000, 1000), (0, 0, 1000, 1000), id="all-white"),
        pytest.param((1024, 1024), (0, 0, 0, 0), (0, 0, 512, 512), id="all-black"),
    ],
)
def test_crop_box_is_native_sized_around_the_white(
    size: tuple[int, int], white: Box, box: Box
) -> None:
    mask = mask_of(*size, white)
    found = crop_box(mask, native_px=512, padding_px=32)
    left, top, right, bottom = found
    assert left % 8 == top % 8 == 0
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert not white[2] or (left <= white[0] and right >= white[2])
    assert found == box


def test_open_canvas_text2img_needs_no_picture() -> None:
    assert open_canvas(spec(Kind.TEXT2IMG), None, 512, 32) is None


def test_open_canvas_full_frame_takes_no_crop() -> None:
    cropped = open_canvas(spec(), inputs(), 64, 8)
    whole = open_canvas(spec(full_frame=True), inputs(), 64, 8)
    assert cropped is not None
    assert cropped.size == (64, 64)
    assert whole is not None
    assert whole.size == (128, 192)


@pytest.mark.parametrize(
    "data", [pytest.param(b"", id="empty"), pytest.param(b"\x89PNG\r\n\x1a\nx", id="truncated")]
)
def test_open_canvas_unreadable_picture_names_its_field(data: bytes) -> None:
    with pytest.raises(errors.InvalidImage) as caught:
        open_canvas(spec(), PreparedImages(Picture(data, 128, 192)), 512, 32)
    assert caught.value.field == "init_image"


@pytest.mark.parametrize("seam_px", [0, 4])
def test_paste_leaves_black_exactly_and_fills_white(seam_px: int) -> None:
    white = (8, 8, 40, 40)
    canvas = open_canvas(spec(), inputs(white), 64, 8)
    assert canvas is not None
    result = np.full((*canvas.size, 3), 255, np.uint8)
    frame = paste(result, canvas, seam_px)
    before = np.asarray(canvas.init)
    is_white = np.asarray(canvas.mask) > 0
    assert (frame[~is_white] == before[~is_white]).all()
    assert (frame[8 + seam_px : 40 - seam_px, 8 + seam_px : 40 - seam_px] == 255).all()


def test_paste_seam_rises_from_the_black() -> None:
    canvas = Canvas(Image.new("RGB", (64, 64)), mask_of(64, 64, (16, 0, 64, 64)), (0, 0, 64, 64))
    frame = paste(np.full((64, 64, 3), 250, np.uint8), canvas, 4)
    row = frame[32, 14:24, 0].tolist()
    assert row == sorted(row)
    assert row[:3] == [0, 0, 50]
    assert row[-1] == 250
    assert frame[32, 63, 0] == 250, "the edge of the frame is no seam"


def test_paste_without_mask_is_the_result() -> None:
    result = np.zeros((4, 4, 3), np.uint8)
    assert paste(result, None, 4) is result


@pytest.mark.parametrize(
    ("white", "cells"),
    [
        pytest.param((21, 0, 23, 32), (16, 0, 24, 32), id="line-inside-a-cell"),
        pytest.param((23, 9, 25, 10), (16, 8, 32, 16), id="dot-on-the-border-of-two"),
        pytest.param((16, 8, 32, 24), (16, 8, 32, 24), id="whole-cells-stay"),
        pytest.param((0, 0, 0, 0), (0, 0, 0, 0), id="black"),
    ],
)
def test_touched_cells_are_whitened_whole(white: Box, cells: Box) -> None:
    found = touched_cells(mask_of(48, 32, white), 8)
    assert found.tobytes() == mask_of(48, 32, cells).tobytes()


def test_encode_round_trips_losslessly() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    picture = encode(pixels)
    assert (picture.height, picture.width) == (8, 16)
    assert (np.asarray(Image.open(io.BytesIO(picture.data))) == pixels).all()
