"""Bad input at the HTTP level: the API's own shape, the field's name, nothing of the server."""

import math

import pytest

from serve_app import errors
from serve_app.config import HttpConfig

INPAINT = "/api/v4/dreambooth/inpaint"
TEXT2IMG = "/api/v4/dreambooth"
V6 = "/api/v6/images/text2img"
SECRET = "sk_live_canary"


def holds(reply, documented):
    return {name: reply.get(name) for name in documented} == documented


async def test_missing_model_is_the_documented_error(api, inpaint_body, load_golden):
    del inpaint_body["model_id"]
    assert holds(await api.reply(INPAINT, inpaint_body), load_golden("error_missing_model"))


@pytest.mark.parametrize("model_id", ["nope", "../../etc/passwd", "/etc/passwd", "a" * 500, 7])
async def test_unknown_model_is_the_documented_error(api, inpaint_body, model_id, load_golden):
    reply = await api.reply(INPAINT, inpaint_body | {"model_id": model_id})
    assert holds(reply, load_golden("error_missing_model"))


async def test_model_that_does_not_do_the_kind_says_so(api, text_body):
    reply = await api.reply(TEXT2IMG, text_body | {"model_id": "inpaint-only"})
    assert (reply["status"], reply["reason"]) == ("error", "not_served")
    assert "text2img" in reply["message"]


@pytest.mark.parametrize("prompt", [None, "", "null", "  "])
async def test_missing_prompt_is_the_documented_error(api, text_body, prompt, load_golden):
    reply = await api.reply(TEXT2IMG, text_body | {"prompt": prompt})
    assert holds(reply, load_golden("error_missing_prompt"))


async def test_all_missing_fields_are_named(api):
    reply = await api.reply(INPAINT, {"model_id": "your_model_id"})
    assert reply["message"] == {
        "prompt": ["The prompt field is required."],
        "init_image": ["The init image field is required."],
        "mask_image": ["The mask image field is required."],
    }


async def test_prompt_is_optional_on_v6_with_a_picture(api):
    body = {"model_id": "your_model_id", "init_image": "https://a.example/i.png"}
    assert (await api.reply("/api/v6/images/img2img", body))["status"] == "success"
    answer = await api.post(V6, {"model_id": "your_model_id"})
    assert (answer.status_code, answer.json()["message"]) == (400, "prompt is required")


@pytest.mark.parametrize(
    "content",
    [b"hello", b"[1, 2]", b'{"key": ', b"[" * 100_000, b'{"a": "\xff"}', b'{"a":' * 900_000],
    ids=["text", "list", "cut off", "deep", "no utf-8", "deep and long"],
)
async def test_body_that_is_no_json_object_is_refused(api, content):
    answer = await api.http.post(TEXT2IMG, content=content)
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["message"]) == ("error", "Invalid API Request")
    assert (await api.http.post(V6, content=content)).status_code == 400


@pytest.mark.parametrize("path", [TEXT2IMG, V6])
@pytest.mark.parametrize("has_length", [True, False])
async def test_body_over_the_limit_is_refused(make_api, path, has_length):
    api = make_api(http=HttpConfig(max_body_bytes=2048))
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1000):
            sent += 1024
            yield b" " * 1024

    content = b" " * 4096 if has_length else chunks()
    answer = await api.http.post(path, content=content)
    assert answer.status_code == (200 if path == TEXT2IMG else 413)
    assert answer.json()["reason"] == "body_too_large"
    assert sent <= 3 * 2048  # as much is dropped after the answer


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 0, "The width must be at least 64."),
        ("width", "7", "The width must be at least 64."),
        ("height", -512, "The height must be at least 64."),
        ("width", "abc", "The width must be an integer."),
        ("width", math.nan, "The width must be a finite number."),
        ("steps", "abc", "The steps must be an integer."),
        ("num_inference_steps", math.inf, "The num inference steps must be a finite number."),
        ("samples", 0, "The samples must be between 1 and 4."),
        ("samples", "5", "The samples must be between 1 and 4."),
        ("samples", "abc", "The samples must be an integer."),
        ("guidance_scale", math.nan, "The guidance scale must be a finite number."),
        ("guidance_scale", "Infinity", "The guidance scale must be a finite number."),
        ("guidance_scale", 0.5, "The guidance scale must be between 1 and 20."),
        ("guidance_scale", 10**400, "The guidance scale is out of range."),
        ("strength", "abc", "The strength must be a number."),
        ("strength", 1.5, "The strength must be between 0 and 1."),
        ("seed", "abc", "The seed must be an integer."),
        ("seed", math.nan, "The seed must be a finite number."),
        ("clip_skip", 9, "The clip skip must be between 1 and 8."),
        ("safety_checker", "maybe", "The safety checker must be yes or no."),
        ("prompt", 5, "The prompt must be a string."),
        ("prompt", "x" * 10_001, "The prompt may not be greater than 10000 characters."),
        ("init_image", {"a": 1}, "The init image must be a URL, a base64 string or a data URI."),
        ("mask_image", ["a", "b"], "The mask image must be one picture, and 2 were sent."),
        ("vae", "x" * 513, "The vae may not be greater than 512 characters."),
        ("vae", True, "The vae must be a string."),
        ("vae", int("9" * 600), "The vae may not be greater than 512 characters."),
        (
            "webhook",
            "file:///etc/passwd",
            "The webhook must be a valid URL that starts with http:// or https://.",
        ),
        ("lora_strength", "a,b", "The lora strength must be a number."),
        ("upscale", "4", "The upscale must be one of no, yes, 1, 2, 3."),
    ],
)
async def test_bad_value_is_named_with_its_field(api, inpaint_body, field, value, message):
    answer = await api.post(INPAINT, inpaint_body | {field: value})
    assert answer.status_code == 200
    assert answer.json()["status"] == "error"
    assert answer.json()["message"] == {field: [message]}
    assert answer.json()["messege"] == answer.json()["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"aspect_ratio": "16:9"},
            "aspect_ratio is not served here; use width and height instead.",
        ),
        (
            {"init_image": ["https://a.example/1.png", "https://a.example/2.png"]},
            "init_image must be one picture, and 2 were sent",
        ),
    ],
)
async def test_v7_says_what_it_does_not_take(api, text_body, service, fields, message):
    body = text_body | {"init_image": ["https://a.example/1.png"]} | fields
    answer = await api.post("/api/v7/images/image-to-image", body)
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert not service.jobs


@pytest.mark.parametrize(
    ("field", "value"),
    [("scheduler", "Nope"), ("safety_checker_type", "red"), ("algorithm_type", "fast")],
)
async def test_bad_choice_lists_the_good_ones(api, inpaint_body, field, value):
    reply = await api.reply(INPAINT, inpaint_body | {field: value})
    assert "must be one of" in reply["message"][field][0]


async def test_strength_that_leaves_no_step_is_refused(api, inpaint_body):
    reply = await api.reply(INPAINT, inpaint_body | {"strength": 0, "steps": 50})
    assert list(reply["message"]) == ["strength"]


async def test_base64_that_is_none_is_named_with_its_field(api, inpaint_body):
    reply = await api.reply(INPAINT, inpaint_body | {"mask_image": "!not base64!"})
    assert list(reply["message"]) == ["mask_image"]
    assert reply["reason"] == "invalid_image"


async def test_several_bad_fields_are_all_named(api, text_body):
    reply = await api.reply(TEXT2IMG, text_body | {"width": "a", "samples": 9})
    assert set(reply["message"]) == {"width", "samples"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 100}, "width must be between 256 and 1024"),
        ({"height": 513}, "height must be divisible by 8"),
        ({"samples": 5}, "samples must be between 1 and 4"),
        ({"guidance_scale": 21}, "guidance_scale must be between 1 and 20"),
        ({"prompt": 5}, "prompt must be a string"),
        ({"vae": "x"}, "vae: No VAE of the id x is in the catalogue."),
    ],
)
async def test_bad_value_on_v6_has_the_later_wording_and_code(api, text_body, fields, message):
    answer = await api.post(V6, text_body | fields)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


async def test_unknown_model_on_v6_is_a_404(api, text_body):
    answer = await api.post(V6, text_body | {"model_id": "nope"})
    assert (answer.status_code, answer.json()["status"]) == (404, "error")


async def test_bad_key_is_the_documented_error(api, text_body, load_golden):
    api.service.keys = {SECRET: "owner"}
    assert holds(await api.reply(TEXT2IMG, text_body | {"key": "x"}), load_golden("error_key"))
    answer = await api.post(V6, text_body)
    assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"key": SECRET}, {}),
        ({"key": f" {SECRET} "}, {}),
        ({}, {"authorization": f"Bearer {SECRET}"}),
        ({"key": ""}, {"authorization": f"bearer {SECRET}"}),
        ({"key": None}, {"key": SECRET}),
    ],
)
async def test_key_is_taken_from_body_or_headers(api, text_body, fields, headers):
    api.service.keys = {SECRET: "owner"}
    reply = await api.reply(TEXT2IMG, text_body | fields, headers=headers)
    assert reply["status"] == "success"


@pytest.mark.parametrize("key", [5, ["a"], {"a": 1}, "x" * 5000, "\ud800"])
async def test_key_of_a_strange_kind_is_a_bad_key(api, text_body, key):
    api.service.keys = {SECRET: "owner"}
    reply = await api.reply(TEXT2IMG, text_body | {"key": key})
    assert reply["message"] == "Invalid Api Key"


async def test_codes_of_each_era_can_be_switched(make_api):
    api = make_api(http=HttpConfig(real_codes_v3_v4=True, real_codes_v6_v7=False))
    api.service.refusal = errors.Overloaded(4)
    body = {"model_id": "your_model_id", "prompt": "a"}
    answer = await api.post(TEXT2IMG, body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "4")
    answer = await api.post(V6, body)
    assert (answer.status_code, "retry-after" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    ("asked", "field", "beside"),
    [
        ({"strength": 0.01}, "strength", "these steps"),
        ({"strength": 0.01, "steps": 20}, "strength", "these steps"),
        ({"steps": 1}, "steps", "this strength"),
    ],
    ids=["strength", "both", "steps"],
)
async def test_strength_that_leaves_no_step_is_told_in_a_sentence(
    api, inpaint_body, asked, field, beside
):
    body = {
        name: value for name, value in inpaint_body.items() if name not in ("steps", "strength")
    }
    reply = await api.reply(INPAINT, body | asked)
    text = f"The {field} is too small: with {beside} not one would run."
    assert reply["message"] == {field: [text]}
