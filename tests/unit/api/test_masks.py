"""Fields about masks, crops and growing pictures, which the hosted API does not have."""

import pytest

from serve_app.config import HttpConfig
from serve_app.types import Fill, Kind, Masking, MaskMode, Outpaint

INPAINT = "/api/v4/dreambooth/inpaint"
HELPER = "/api/v6/image_editing/outpaint"
HTTP = HttpConfig()
FIELDS = {
    *("mask_mode", "invert_mask", "mask_expand", "mask_blur", "fill", "padding", "only_masked"),
    *("outpaint", "anchor", "overlap_width"),
}
GROWN = {"outpaint": "64,0,8,0", "mask_image": None}
HONOURED = {
    "nothing": ({}, lambda spec: (spec.masking, spec.fill) == (Masking(), Fill.ORIGINAL)),
    "mask_mode": ({"mask_mode": "Soft"}, lambda spec: spec.masking.mode is MaskMode.SOFT),
    "invert_mask": ({"invert_mask": "yes"}, lambda spec: spec.masking.invert),
    "mask_expand": ({"mask_expand": "-12"}, lambda spec: spec.masking.expand_px == -12),
    "mask_blur": ({"mask_blur": "4.0"}, lambda spec: spec.masking.blur_px == 4),
    "mask_blur 0": ({"mask_blur": 0}, lambda spec: spec.masking.blur_px == 0),
    "fill": ({"fill": "TELEA"}, lambda spec: spec.fill is Fill.TELEA),
    "padding": ({"padding": 0}, lambda spec: spec.padding_px == 0),
    "only_masked": ({"only_masked": True}, lambda spec: spec.only_masked),
}
REFUSED = {
    "mask_mode": ({"mask_mode": "fuzzy"}, "mask_mode"),
    "invert_mask": ({"invert_mask": "perhaps"}, "invert_mask"),
    "mask_expand": ({"mask_expand": 257}, "mask_expand"),
    "mask_expand, below": ({"mask_expand": -257}, "mask_expand"),
    "mask_blur": ({"mask_blur": 65}, "mask_blur"),
    "mask_blur, below": ({"mask_blur": -1}, "mask_blur"),
    "fill": ({"fill": "lava"}, "fill"),
    "padding": ({"padding": 513}, "padding"),
    "outpaint of 0": ({"outpaint": 0}, "outpaint"),
    "outpaint of 0 on all sides": ({"outpaint": "0,0,0,0"}, "outpaint"),
    "outpaint of 10000": ({"outpaint": {"left": 10_000}}, "outpaint"),
    "outpaint, below": ({"outpaint": "-8,0,0,0"}, "outpaint"),
    "outpaint of three": ({"outpaint": "1,2,3"}, "outpaint"),
    "outpaint of a word": ({"outpaint": "left"}, "outpaint"),
    "outpaint of an unknown side": ({"outpaint": {"up": 64}}, "outpaint"),
    "outpaint and anchor": (GROWN | {"anchor": "left"}, "anchor"),
    "anchor": ({"anchor": "north"}, "anchor"),
    "anchor of two": ({"anchor": "left-right"}, "anchor"),
    "anchor without a size": ({"anchor": "left", "width": None, "height": None}, "anchor"),
    "overlap_width": (GROWN | {"overlap_width": 129}, "overlap_width"),
    "canvas of 400 digits": (GROWN | {"width": "1" * 400}, "width"),
    "canvas of 1e308": (GROWN | {"height": 1e308}, "height"),
    "canvas around an anchor": (
        {"mask_image": None, "anchor": "left", "width": HTTP.max_outpaint_side_px + 8},
        "width",
    ),
    "strength that runs nothing": ({"strength": 0.01, "mask_mode": "soft"}, "strength"),
}
ROOMS = {
    "comma list": ("64,0,8,16", (64, 0, 8, 16)),
    "list": ([64, "0", 8, 16], (64, 0, 8, 16)),
    "object": ({"left": 64, "right": "8"}, (64, 0, 8, 0)),
    "object in a form": ('{"left": 64, "bottom": 8}', (64, 0, 0, 8)),
    "one number": ("32", (32, 32, 32, 32)),
}
OUTPAINT = ("image_editing/outpaint",)


async def spec_of(api, inpaint_body, fields):
    return (await api.last_request(INPAINT, inpaint_body | fields)).spec


@pytest.mark.parametrize("row", HONOURED)
async def test_field_is_honoured(api, inpaint_body, row):
    fields, check = HONOURED[row]
    assert check(await spec_of(api, inpaint_body, fields))


@pytest.mark.parametrize("row", REFUSED)
async def test_bad_field_is_named_and_nothing_is_stored(api, service, inpaint_body, row):
    fields, name = REFUSED[row]
    reply = await api.reply(INPAINT, inpaint_body | fields)
    assert reply["status"] == "error"
    assert name in reply["message"]
    assert not service.jobs


@pytest.mark.parametrize("row", ROOMS)
async def test_outpaint_is_read_in_every_form(api, inpaint_body, row):
    value, sides = ROOMS[row]
    spec = await spec_of(api, inpaint_body, {"outpaint": value, "mask_image": None})
    plan = spec.outpaint
    assert (plan.left, plan.top, plan.right, plan.bottom) == sides


async def test_picture_that_grows_needs_no_mask_and_begins_with_blur(api, inpaint_body):
    body = inpaint_body | GROWN | {"strength": None, "width": None, "height": None}
    request = await api.last_request(INPAINT, body)
    assert request.mask_image is None
    assert (request.spec.strength, request.spec.fill, request.spec.fit) == (1.0, Fill.BLUR, None)
    assert request.spec.outpaint == Outpaint(
        left=64,
        right=8,
        overlap_px=32,
        multiple_px=8,
        max_side_px=HTTP.max_outpaint_side_px,
        max_area_px=HTTP.max_output_pixels,
    )
    assert (request.spec.width, request.spec.height) == (512 + 72, 512)


async def test_anchor_takes_the_canvas_from_width_and_height(api, inpaint_body):
    size = {"width": 1536, "height": 640}
    spec = await spec_of(api, inpaint_body, size | {"anchor": "top-right", "mask_image": None})
    assert spec.outpaint.anchor == (1.0, 0.0)
    assert (spec.outpaint.width, spec.outpaint.height) == (1536, 640)
    assert (spec.width, spec.height) == (1536, 640)


OF_MASKS = {
    "mask_mode": "soft",
    "invert_mask": "yes",
    "mask_expand": 4,
    "mask_blur": 9,
    "fill": "noise",
    "padding": 9,
    "only_masked": "yes",
    "overlap_width": 9,
}
IDLE = {
    "mask_mode": "auto",
    "invert_mask": "no",
    "mask_expand": 0,
    "mask_blur": 0,
    "fill": "original",
    "padding": 0,
    "only_masked": "no",
    "overlap_width": 0,
}


@pytest.mark.parametrize("path", ["/api/v4/dreambooth", "/api/v4/dreambooth/img2img"])
@pytest.mark.parametrize("field", OF_MASKS)
async def test_field_about_masks_is_refused_where_none_is_painted_by(
    api, service, inpaint_body, path, field
):
    reply = await api.reply(path, inpaint_body | {field: OF_MASKS[field]})
    assert reply["message"] == {field: [f"{field} is for inpainting only."]}
    assert not service.jobs
    assert (await api.reply(path, inpaint_body | IDLE))["status"] == "success"


async def test_overlap_is_refused_where_nothing_grows(api, service, inpaint_body):
    reply = await api.reply(INPAINT, inpaint_body | {"overlap_width": 9})
    assert list(reply["message"]) == ["overlap_width"]
    assert not service.jobs


@pytest.mark.parametrize("path", ["/api/v4/dreambooth", "/api/v4/dreambooth/img2img"])
@pytest.mark.parametrize("field", ["outpaint", "anchor"])
async def test_only_inpainting_grows_pictures(api, service, inpaint_body, path, field):
    reply = await api.reply(path, inpaint_body | {field: {"outpaint": 64, "anchor": "left"}[field]})
    assert reply["message"] == {field: [f"{field} is for inpainting only."]}
    assert not service.jobs


HOSTED = {
    "key": "",
    "seed": 12345,
    "width": 512,
    "height": 512,
    "prompt": "a cat house",
    "image": "https://example.org/a.png",
    "negative_prompt": "dull background",
    "overlap_width": 32,
    "num_inference_steps": 15,
    "guidance_scale": 8.0,
    "temp": True,
    "base64": False,
    "webhook": None,
    "track_id": None,
}


async def test_hosted_outpaint_call_becomes_a_job(api):
    request = await api.last_request(HELPER, HOSTED)
    spec = request.spec
    assert (spec.kind, spec.seed, spec.steps, spec.guidance_scale) == (Kind.INPAINT, 12345, 15, 8.0)
    assert spec.outpaint.anchor == (0.5, 0.5)
    assert (spec.outpaint.width, spec.outpaint.height, spec.outpaint.overlap_px) == (512, 512, 32)
    assert request.init_image.url == HOSTED["image"]
    assert request.output.temp


async def test_hosted_outpaint_call_has_its_documented_defaults(api, service):
    body = {"image": HOSTED["image"], "seed": 0, "enhance_prompt": "no"}
    request = await api.last_request(HELPER, body)
    spec = request.spec
    assert (spec.prompt, spec.negative_prompt) == ("high quality", "low quality")
    assert (spec.outpaint.width, spec.outpaint.height) == (1280, 720)
    assert (spec.outpaint.overlap_px, spec.steps, spec.guidance_scale) == (10, 10, 8.0)
    assert request.output.temp
    seeds = {(await api.last_request(HELPER, body)).spec.seed for _ in range(3)}
    assert len(seeds) == 3
    inpainting = next(entry.id for entry in service.catalogue if Kind.INPAINT in entry.kinds)
    assert spec.model_id == inpainting


async def test_hosted_outpaint_call_without_a_picture_names_the_field(api):
    reply = await api.reply(HELPER, {"prompt": "a cat"})
    assert "init_image is required" in reply["message"]
