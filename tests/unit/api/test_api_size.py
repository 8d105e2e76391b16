"""The size of a job: asked for, or left to the picture."""

import pytest

from serve_app.config import HttpConfig

INPAINT = "/api/v4/dreambooth/inpaint"
TEXT2IMG = "/api/v4/dreambooth"
IMG2IMG = "/api/v4/dreambooth/img2img"


async def test_size_fits_the_cells_of_the_model(api, text_body):
    body = text_body | {"model_id": "coarse", "width": 264, "height": 1000}
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert (spec.width, spec.height) == (256, 992)
    reply = await api.reply("/api/v6/images/text2img", body)
    assert reply["message"] == "width must be divisible by 16; height must be divisible by 16"


@pytest.mark.parametrize("path", [IMG2IMG, INPAINT, "/api/v6/images/inpaint"])
@pytest.mark.parametrize(
    ("asked", "left", "expected"),
    [
        ({}, (None, None), (512, 512)),
        ({"width": 640}, (None, 640), (512, 640)),
        ({"height": "320", "width": ""}, (320, None), (320, 512)),
    ],
    ids=["nothing", "width", "height"],
)
async def test_size_that_was_not_asked_for_is_left_to_the_picture(
    api, inpaint_body, path, asked, left, expected
):
    body = inpaint_body | {"width": None, "height": None} | asked
    spec = (await api.last_request(path, body)).spec
    assert (spec.fit.height, spec.fit.width) == left
    assert (spec.height, spec.width) == expected
    assert (spec.fit.area_px, spec.fit.multiple_px) == (512**2, 8)
    assert (spec.fit.min_px, spec.fit.max_px) == (64, 1024)


async def test_size_is_left_to_no_picture_where_it_was_asked_for_or_there_is_none(
    api, inpaint_body, text_body
):
    body = inpaint_body | {"width": 640, "height": 320}
    for path, asked in ((INPAINT, body), (IMG2IMG, body), (TEXT2IMG, text_body)):
        assert (await api.last_request(path, asked)).spec.fit is None


async def test_size_left_to_the_picture_keeps_what_the_model_and_the_limits_say(
    make_api, inpaint_body
):
    api = make_api(HttpConfig(max_output_pixels=2048 * 1024))
    body = inpaint_body | {"model_id": "coarse", "width": "", "height": "", "upscale": 2}
    fit = (await api.last_request(INPAINT, body)).spec.fit
    assert (fit.multiple_px, fit.max_area_px) == (16, 512 * 1024)


async def test_strict_size_is_refused_though_the_other_side_is_left_to_the_picture(
    api, inpaint_body
):
    body = inpaint_body | {"width": 250, "height": None}
    reply = await api.reply("/api/v6/images/inpaint", body)
    assert reply["message"] == "width must be between 256 and 1024"
