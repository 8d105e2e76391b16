"""The helper calls beside generation."""

import pytest

from serve_app.types import JobState

DATA = "data:image/png;base64,iVBORw0KGgo="
CROP = "/api/v3/base64_crop"
TO_URL = "/api/v6/base64_to_url"
CHECK = "/api/v3/nsfw_image_check"
DELETE = "/api/v3/delete_image"
ALL = [CROP, TO_URL, CHECK, DELETE, "/api/v3/system_load"]


async def test_base64_crop_gives_the_documented_reply(api):
    reply = await api.reply(CROP, {"key": "", "image": DATA, "crop": "true"})
    request_id = reply.pop("request_id")
    assert isinstance(request_id, int)
    assert 2**52 <= request_id < 2**53
    link = "http://testserver/files/temp/0-dc639bd6-d605-42c7-950e-48c531124d0d.png"
    text = "image uploaded"
    assert reply == {"status": "success", "message": text, "messege": text, "link": link}


@pytest.mark.parametrize(("crop", "expected"), [("true", True), ("false", False), (None, False)])
async def test_base64_crop_crops_when_it_is_asked_to(api, crop, expected):
    await api.reply(CROP, {"key": "", "image": DATA, "crop": crop})
    assert api.service.published == [("image", DATA, expected)]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (TO_URL, "base64_string"),
        (TO_URL, "init_image"),
        ("/api/v6/image_editing/base64_to_url", "init_image"),
    ],
)
async def test_base64_to_url_gives_the_documented_reply(api, path, field):
    reply = await api.reply(path, {"key": "", field: DATA})
    assert (reply["status"], reply["id"]) == ("success", reply["request_id"])
    assert [link.startswith("http://testserver/files/temp/") for link in reply["output"]] == [True]
    assert api.service.published[0][1:] == (DATA, False)


@pytest.mark.parametrize(
    ("path", "field"), [(CROP, "image"), (TO_URL, "base64_string"), (CHECK, "init_image")]
)
async def test_missing_picture_is_the_documented_error(api, path, field):
    message = (await api.reply(path, {"key": ""}))["message"]
    text = f"The {field.replace('_', ' ')} field is required."
    assert message == ({field: [text]} if "/v3/" in path else f"{field} is required")


@pytest.mark.parametrize(("path", "field"), [(CROP, "image"), (TO_URL, "base64_string")])
async def test_link_where_data_is_wanted_is_refused(api, path, field):
    reply = await api.reply(path, {"key": "", field: "https://a.example/i.png"})
    assert reply["reason"] == "invalid_image"
    assert field in str(reply["message"])


@pytest.mark.parametrize("path", [CHECK, "/api/v1/enterprise/nsfw_image_check"])
@pytest.mark.parametrize("flags", [True, False])
async def test_nsfw_image_check_gives_the_documented_reply(api, path, flags):
    api.service.flags = flags
    link = "https://a.example/i.png"
    reply = await api.reply(path, {"key": "", "init_image": link, "threshold": "0.5"})
    assert reply == {"images": link, "has_nsfw_concept": [flags]}
    inline = await api.reply(path, {"key": "", "init_image": DATA})
    assert inline == {"images": "", "has_nsfw_concept": [flags]}


async def test_nsfw_image_check_with_another_threshold_is_refused(api):
    reply = await api.reply(CHECK, {"init_image": "https://a.example/i.png", "threshold": 0.2})
    assert list(reply["message"]) == ["threshold"]


@pytest.mark.parametrize("as_type", [int, str])
async def test_delete_image_ends_the_job_and_its_files(api, text_body, as_type):
    body = text_body | {"instant_response": "yes"}
    job_id = (await api.reply("/api/v4/dreambooth", body))["id"]
    reply = await api.reply(DELETE, {"key": "", "request_id": as_type(job_id), "type": "image"})
    text = "image deleted"
    assert reply == {"status": "success", "message": text, "messege": text}
    assert api.service.deleted == [job_id]
    assert api.service.jobs[job_id].state is JobState.CANCELLED


@pytest.mark.parametrize("request_id", [1, "x", 2**52 + 1, 10**30])
async def test_delete_image_of_an_unknown_id_is_not_found(api, request_id):
    reply = await api.reply(DELETE, {"key": "", "request_id": request_id})
    assert reply["status"] in ("failed", "error")
    assert api.service.deleted == []


async def test_delete_image_of_another_keys_job_is_not_found(api, text_body):
    api.service.keys = {"a": "owner-a", "b": "owner-b"}
    job_id = (await api.reply("/api/v4/dreambooth", text_body | {"key": "a"}))["id"]
    reply = await api.reply(DELETE, {"key": "b", "request_id": job_id})
    assert reply["message"] == "Request not found"
    assert api.service.deleted == []


async def test_delete_image_needs_an_id_and_the_right_type(api):
    reply = await api.reply(DELETE, {"key": ""})
    assert reply["message"] == {"request_id": ["The request id field is required."]}
    reply = await api.reply(DELETE, {"key": "", "request_id": 1, "type": "video"})
    assert list(reply["message"]) == ["type"]


async def test_system_load_gives_the_documented_reply(api, text_body):
    for _ in range(3):
        await api.reply("/api/v4/dreambooth", text_body | {"instant_response": "yes"})
    reply = await api.reply("/api/v3/system_load", {"key": ""})
    assert reply == {"queue_num": 3, "queue_time": 7.5, "status": "ok"}


@pytest.mark.parametrize("path", ALL)
async def test_helper_calls_ask_for_the_key(api, path):
    api.service.keys = {"good": "owner"}
    assert (await api.reply(path, {"key": "bad"}))["reason"] == "invalid_key"
