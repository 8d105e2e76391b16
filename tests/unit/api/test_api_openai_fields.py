"""What OpenAI's calls make of the fields of ours that stand beside theirs."""

import pytest

from serve_app.types import JobRequest, Kind
from tests.unit.api.test_api_openai import Files

PATH = "/v1/images/generations"
EDITS = "/v1/images/edits"
PICTURE = "http://example.com/a.png"
BODY = {"model": "your_model_id", "prompt": "a cat", "seed": 7}


@pytest.fixture
def ask(api, service):
    """Send a body, and return the job that it makes."""
    service.files = Files()

    async def send(body, path=PATH) -> JobRequest:
        answer = await api.post(path, body)
        assert answer.status_code == 200, answer.text
        return service.jobs[max(service.jobs)].request

    return send


ABSENT = [None, "", " ", "null", []]


@pytest.mark.parametrize("value", ABSENT, ids=repr)
@pytest.mark.parametrize(
    ("base", "name"),
    [
        ({}, "safety_checker"),
        ({}, " safety_checker"),
        ({}, "controlnet_model"),
        ({}, "controlnet_type"),
        ({"quality": "low"}, "steps"),
        ({"quality": "high"}, "num_inference_steps"),
        ({"n": 2}, "samples"),
        ({"size": "256x256"}, "width"),
        ({"user": "somebody"}, "track_id"),
    ],
    ids=str,
)
async def test_field_that_is_absent_is_as_one_left_out(ask, base, name, value):
    expected = await ask(BODY | base)
    found = await ask(BODY | base | {name: value})
    same = {"call_id": expected.call_id}
    assert found.model_copy(update=same) == expected


@pytest.mark.parametrize("name", ["controlnet_model", "controlnet_type", "steps"])
async def test_word_none_names_nothing(ask, name):
    expected = await ask(BODY | {"quality": "low"})
    found = await ask(BODY | {"quality": "low", name: "none"})
    assert found.model_copy(update={"call_id": expected.call_id}) == expected


async def test_track_id_of_ours_goes_before_the_user(ask):
    webhook = {"webhook": "http://example.com/hook"}
    assert (await ask(BODY | webhook | {"track_id": "order-7"})).track_id == "order-7"
    both = {"track_id": "order-7", "user": "somebody"}
    assert (await ask(BODY | webhook | both)).track_id == "order-7"
    assert (await ask(BODY | webhook | {"user": "somebody"})).track_id == "somebody"


NET = {"controlnet_model": "control-canny", "init_image": PICTURE}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="text to image"),
        pytest.param({"strength": 0.3}, id="painted over"),
        pytest.param({"mask_image": PICTURE}, id="by a mask"),
    ],
)
async def test_controlnets_paint_as_in_the_call_that_is_for_them(api, ask, service, fields):
    job = await ask(BODY | NET | fields)
    own = {"key": "", "model_id": BODY["model"], "prompt": BODY["prompt"], "seed": 7}
    reply = await api.reply("/api/v5/controlnet", own | {"safety_checker": "no"} | NET | fields)
    expected = service.jobs[reply["id"]].request
    assert job.spec == expected.spec
    assert (job.init_image, job.control_image) == (expected.init_image, expected.control_image)
    assert job.mask_image == expected.mask_image  # white is repainted, as the field says


@pytest.mark.parametrize(
    ("path", "fields", "field"),
    [
        pytest.param(PATH, {"init_image": PICTURE}, "image", id="init_image"),
        pytest.param(PATH, {"mask_image": PICTURE}, "mask", id="mask_image"),
        pytest.param(PATH, {"strength": 0.3}, "strength", id="strength"),
        pytest.param(PATH, {"fill": "noise"}, "fill", id="fill"),
        pytest.param(EDITS, {"image": PICTURE, "init_image": PICTURE}, "image", id="two pictures"),
        pytest.param(
            EDITS,
            {"image": PICTURE, "mask": PICTURE, "mask_image": PICTURE},
            "mask",
            id="two masks",
        ),
    ],
)
async def test_field_of_ours_without_effect_is_refused(api, service, path, fields, field):
    answer = await api.post(path, BODY | fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (field, "invalid_value")
    assert not service.jobs


@pytest.mark.parametrize(
    ("fields", "kind", "is_alpha"),
    [
        pytest.param({"outpaint": 64}, Kind.INPAINT, None, id="grows"),
        pytest.param({"anchor": "left", "size": "1024x512"}, Kind.INPAINT, None, id="anchor"),
        pytest.param({"mask": PICTURE, "outpaint": 64}, Kind.INPAINT, True, id="mask too"),
        pytest.param({"mask_image": PICTURE}, Kind.INPAINT, False, id="mask of ours"),
        pytest.param({}, Kind.IMG2IMG, None, id="no mask"),
    ],
)
async def test_edit_is_an_inpaint_by_a_mask_of_either_kind_or_where_it_grows(
    ask, fields, kind, is_alpha
):
    job = await ask(BODY | {"image": PICTURE} | fields, EDITS)
    assert job.spec.kind is kind
    assert (job.spec.outpaint is not None) == ("outpaint" in fields or "anchor" in fields)
    assert (job.mask_image and job.mask_image.is_alpha_mask) == is_alpha
