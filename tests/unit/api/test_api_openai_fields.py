"""What OpenAI's calls make of the fields of ours that stand beside theirs."""

import pytest

from serve_app.types import JobRequest
from tests.unit.api.test_api_openai import Files

PATH = "/v1/images/generations"
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
