"""When a preview is made, and how it is laid out. What it shows is in `tests/engine`."""

from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.previews import Preview, framed


class Now:
    """In place of a pool of threads: runs at once, unless it is shut down."""

    is_down = False

    def submit(self, call, *args):
        if self.is_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        call(*args)
        return Future()


def made(estimate, size):
    return f"{estimate} {size}".encode()


@pytest.fixture
def preview():
    return Preview(made, Now(), every=3, first=10)


def shown(preview, *steps):
    """Ask before each step; return the newest after each, counted from the job's first step."""
    found = []
    for step in steps:
        preview.ask()
        preview.see(step, f"step {step}", (8, 9))
        found.append(preview.newest[0])
    return found


def test_nothing_is_made_for_nobody(preview):
    preview.see(0, "step 0", (8, 9))
    assert preview.ask() == (-1, b"")
    preview.see(1, "step 1", (8, 9))
    assert preview.ask() == (11, b"step 1 (8, 9)")
    preview.see(4, "step 4", (8, 9))
    preview.see(7, "step 7", (8, 9))
    assert preview.newest[0] == 14, "once for each time that somebody asked"


def test_previews_are_some_steps_apart_from_the_first_one_asked_for(preview):
    assert shown(preview, 0, 1, 2, 3, 4, 5, 7, 8) == [10, 10, 10, 13, 13, 13, 17, 17]


def test_preview_that_goes_on_keeps_what_was_made_and_asked(preview):
    preview.ask()
    preview.see(0, "step 0", (8, 9))
    following = Preview(made, Now(), every=3, first=12)
    following.go_on(preview)
    assert following.ask() == (10, b"step 0 (8, 9)")
    following.see(0, "step 0", (8, 9))
    assert following.newest[0] == 10, "too soon"
    another = Preview(made, Now(), every=3, first=12)
    another.go_on(following)
    another.see(1, "step 1", (8, 9))
    assert another.newest[0] == 13, "it was asked for before"


def test_job_goes_on_without_a_preview_that_fails_or_that_nobody_makes(preview):
    preview.make = lambda *_: 1 / 0
    assert shown(preview, 0) == [-1]
    preview.make = made
    assert shown(preview, 3) == [13]
    preview.threads.is_down = True
    assert shown(preview, 6) == [13]


@pytest.mark.parametrize(
    ("size", "side_px", "whole"),
    [
        ((512, 1024), 256, (256, 128)),
        ((1024, 512), 256, (128, 256)),
        ((64, 96), 256, (96, 64)),
        ((8, 4096), 256, (256, 1)),
        ((4096, 8), 256, (1, 256)),
    ],
    ids=["wide", "upright", "small", "strip", "upright-strip"],
)
def test_preview_has_the_shape_of_the_picture_and_no_side_beyond_the_limit(size, side_px, whole):
    assert framed(Image.new("RGB", (4, 4)), size, None, side_px).size == whole
    picture = Canvas(Image.new("RGB", (size[1], size[0])), None, (0, 0, 1, 1))
    assert framed(Image.new("RGB", (4, 4)), (8, 8), picture, side_px).size == whole


def test_preview_of_a_part_shows_it_where_the_mask_is_white():
    mask = Image.new("L", (200, 100))
    mask.paste(255, (60, 20, 80, 60))
    mask.paste(255, (150, 0, 200, 100))
    canvas = Canvas(Image.new("RGB", (200, 100), "blue"), mask, (40, 20, 120, 60))
    part = Image.new("RGB", (4, 2), "red")
    part.paste((0, 255, 0), (2, 0, 4, 2))
    found = np.asarray(framed(part, (64, 64), canvas, 100))
    assert found.shape == (50, 100, 3)
    inside = found[11:29, 31:39]  # half as large as in the picture, and of the part the left half
    assert (inside[..., 0] > inside[..., 1]).all()
    assert (inside[:, :4, 0] > 240).all()
    red = found[..., 0] > 100
    assert np.argwhere(red).min(0).tolist() == [10, 30]
    assert np.argwhere(red).max(0).tolist() == [29, 39]
    assert (found[:, 42:] == (0, 0, 255)).all(), "white beyond the box is none of it"


def test_part_that_is_smaller_than_a_pixel_of_the_preview_is_one():
    mask = Image.new("L", (2048, 2048), 255)
    canvas = Canvas(Image.new("RGB", (2048, 2048), "blue"), mask, (1000, 1000, 1004, 1004))
    found = np.asarray(framed(Image.new("RGB", (4, 4), "red"), (64, 64), canvas, 64))
    assert np.argwhere(found[..., 0] > 200).tolist() == [[31, 31]]
