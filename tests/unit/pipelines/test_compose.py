import io

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.pipelines.compose import (
    Box,
    Canvas,
    Framing,
    crop_box,
    encode,
    near_box,
    near_size,
    open_canvas,
    paste,
    seam_px,
    touched_cells,
)
from serve_app.pipelines.fill import filled
from serve_app.types import Fill, GenerationSpec, Kind, Picture, PreparedImages


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
    assert open_canvas(spec(Kind.TEXT2IMG), None, Framing(512, 32)) is None


def test_open_canvas_img2img_has_the_picture_and_no_mask() -> None:
    canvas = open_canvas(spec(Kind.IMG2IMG), inputs(), Framing(64, 8))
    assert canvas is not None
    assert (canvas.mask, canvas.box) == (None, (0, 0, 192, 128))
    assert canvas.init.size == (192, 128)


def test_open_canvas_full_frame_takes_no_crop() -> None:
    cropped = open_canvas(spec(), inputs(), Framing(64, 8))
    whole = open_canvas(spec(full_frame=True), inputs(), Framing(64, 8))
    assert cropped is not None
    assert cropped.size == (64, 64)
    assert whole is not None
    assert whole.size == (128, 192)


@pytest.mark.parametrize(
    "data", [pytest.param(b"", id="empty"), pytest.param(b"\x89PNG\r\n\x1a\nx", id="truncated")]
)
def test_open_canvas_unreadable_picture_names_its_field(data: bytes) -> None:
    with pytest.raises(errors.InvalidImage) as caught:
        open_canvas(spec(), PreparedImages(Picture(data, 128, 192)), Framing(512, 32))
    assert caught.value.field == "init_image"


@pytest.mark.parametrize("seam_px", [0, 4])
def test_paste_leaves_black_exactly_and_fills_white(seam_px: int) -> None:
    white = (8, 8, 40, 40)
    canvas = open_canvas(spec(), inputs(white), Framing(64, 8))
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


def gradient(width: int = 192, height: int = 128) -> Image.Image:
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.tile(ramp, (height, 1)))


def soft_inputs() -> PreparedImages:
    images = inputs()
    return PreparedImages(images.init, encode(np.asarray(gradient())))


@pytest.mark.parametrize("padding_px", range(0, 33, 3))
@pytest.mark.parametrize("start", range(8, 24))
def test_crop_box_holds_the_whole_mask_and_black_beside_it(start: int, padding_px: int) -> None:
    mask = mask_of(1024, 1024, (start, start, start + 512, start + 512))
    left, top, right, bottom = crop_box(mask, native_px=512, padding_px=padding_px)
    assert 0 <= left < start
    assert start + 512 < right <= 1024
    assert (left, right) == (top, bottom)


@pytest.mark.parametrize("gap", range(7))
def test_mask_near_the_frames_edge_leaves_what_it_does_not_touch(gap: int) -> None:
    white = (64, 32, 192 - gap, 96)
    canvas = open_canvas(spec(), inputs(white), Framing(64, 8))
    assert canvas is not None
    result = np.full((*canvas.size, 3), 255, np.uint8)
    frame, before = paste(result, canvas, 4), np.asarray(canvas.init)
    is_black = np.asarray(canvas.mask) == 0
    assert (frame[is_black] == before[is_black]).all()
    fades = frame[64, 192 - gap - 5 : 192 - gap].astype(int).min(axis=1)
    assert (fades == 255).all() == (gap == 0), "at the frame's own edge nothing fades"


def test_soft_mask_changes_nothing_where_it_is_black_and_all_where_it_is_not() -> None:
    canvas = open_canvas(spec(), soft_inputs(), Framing(64, 8))
    assert canvas is not None
    assert canvas.is_soft
    frame = paste(np.full((*canvas.size, 3), 255, np.uint8), canvas, 0)
    before, shades = np.asarray(canvas.init), np.asarray(canvas.mask)
    assert (frame[shades == 0] == before[shades == 0]).all()
    assert (frame[shades > 0] == 255).all(), "how much was decided between the steps"


@pytest.mark.parametrize(
    ("masking", "is_soft", "fades_px"),
    [
        pytest.param({}, False, 4, id="default"),
        pytest.param({"blur_px": 0}, False, 0, id="none"),
        pytest.param({"blur_px": 12}, True, 4, id="soft"),
        pytest.param({"blur_px": 12, "mode": "hard"}, False, 12, id="hard"),
    ],
)
def test_mask_blur_fades_inward_only(
    masking: dict[str, object], is_soft: bool, fades_px: int
) -> None:
    asked = spec(masking=masking)
    canvas = open_canvas(asked, inputs((40, 30, 150, 100)), Framing(64, 8))
    assert canvas is not None
    assert canvas.mask is not None
    assert canvas.is_soft is is_soft
    assert seam_px(asked.masking, 4) == fades_px
    shades = np.asarray(canvas.mask)
    assert (shades[:30] == 0).all()
    assert (shades[:, :40] == 0).all()
    assert shades[65, 95] == 255
    row = shades[65, 38:56].astype(int)
    assert (np.diff(row) >= 0).all()
    assert (np.diff(row) > 0).sum() == (13 if is_soft else 1)


def test_mask_blur_leaves_what_a_picture_grows_by_whole() -> None:
    plan = {"overlap_px": 4, "multiple_px": 8, "max_side_px": 512, "max_area_px": 512**2}
    asked = spec(masking={"blur_px": 60}, outpaint=plan | {"right": 64})
    canvas = open_canvas(asked, inputs((124, 0, 192, 128)), Framing(64, 8))
    assert canvas is not None
    assert (np.asarray(canvas.mask)[:, 124:] == 255).all()


def test_only_masked_enlarges_what_is_around_a_small_mask() -> None:
    asked = spec(only_masked=True, padding_px=8)
    canvas = open_canvas(asked, inputs((100, 50, 120, 62)), Framing(128, 32))
    assert canvas is not None
    assert canvas.box == (92, 38, 128, 74)
    assert canvas.size == (128, 128)
    assert canvas.seen().size == (128, 128)
    frame = paste(np.full((128, 128, 3), 255, np.uint8), canvas, 0)
    before, is_white = np.asarray(canvas.init), np.asarray(canvas.mask) > 0
    assert (frame[~is_white] == before[~is_white]).all()
    assert (frame[is_white] == 255).all()


@pytest.mark.parametrize(
    ("white", "box", "size"),
    [
        pytest.param((60, 60, 61, 61), (52, 52, 69, 69), (128, 128), id="one-pixel"),
        pytest.param((0, 0, 10, 10), (0, 0, 26, 26), (128, 128), id="at-the-corner"),
        pytest.param((0, 0, 111, 10), (0, 0, 127, 127), (128, 128), id="as-long-as-may-be"),
        pytest.param((0, 0, 112, 10), None, None, id="as-native"),
        pytest.param((0, 0, 192, 10), None, None, id="too-long"),
        pytest.param((0, 0, 0, 0), None, None, id="all-black"),
    ],
)
def test_near_box_is_a_square_smaller_than_the_native_size(
    white: Box, box: Box | None, size: tuple[int, int] | None
) -> None:
    framing = Framing(128, 8)
    found = near_box(mask_of(192, 128, white), framing)
    assert found == box
    assert (found and near_size(found, framing)) == size


def test_near_box_of_a_narrow_frame_keeps_its_shape() -> None:
    framing = Framing(512, 16, multiple_px=16)
    box = near_box(mask_of(64, 768, (10, 300, 20, 400)), framing)
    assert box == (0, 284, 64, 416)
    assert near_size(box, framing) == (512, 256)


def test_near_box_is_enlarged_by_no_more_than_the_setting_says() -> None:
    box = near_box(mask_of(800, 800, (400, 400, 401, 401)), Framing(512, 0, max_zoom=4.0))
    assert box is not None
    assert box[2] - box[0] == 128


@pytest.mark.parametrize("fill", list(Fill))
def test_fill_leaves_all_but_the_white_of_a_mask(fill: Fill) -> None:
    random = np.random.default_rng(4)
    picture = Image.fromarray(random.integers(90, 110, (64, 64, 3), dtype=np.uint8))
    picture.paste((255, 0, 0), (20, 20, 44, 44))
    mask = mask_of(64, 64, (16, 16, 48, 48))
    mask.paste(128, (0, 0, 16, 64))
    made = np.asarray(filled(picture, mask, fill, seed=3)).astype(int)
    before, is_white = np.asarray(picture), np.asarray(mask) == 255
    assert (made[~is_white] == before[~is_white]).all()
    is_red = (made[is_white] == (255, 0, 0)).all(axis=1).mean()
    assert is_red == pytest.approx(24 * 24 / 32**2 if fill is Fill.ORIGINAL else 0)
    if fill is not Fill.ORIGINAL:
        assert (np.abs(made[is_white] - 100) <= 12).all(), "the colours around it"


def test_noise_of_a_fill_is_of_its_seed() -> None:
    picture, mask = gradient(64, 64).convert("RGB"), mask_of(64, 64, (16, 16, 48, 48))
    first, same, other = (filled(picture, mask, Fill.NOISE, seed).tobytes() for seed in (1, 1, 2))
    assert first == same
    assert first != other


@pytest.mark.parametrize("fill", list(Fill))
def test_fill_of_an_all_white_mask_has_the_pictures_colours(fill: Fill) -> None:
    picture = gradient(64, 64).convert("RGB")
    made = np.asarray(filled(picture, Image.new("L", (64, 64), 255), fill, seed=3)).astype(int)
    assert made.shape == (64, 64, 3)
    assert made.mean() == pytest.approx(np.asarray(picture).mean(), abs=4)
    assert (made == np.asarray(picture)).all() == (fill is Fill.ORIGINAL)
