"""OpenAI's calls by OpenAI's own client, over the fake service."""

import base64
import io

import httpx2
import openai
import pytest
from PIL import Image

from serve_app.api import create_api
from serve_app.api.protocol import StoredFile
from serve_app.config import HttpConfig, JobsConfig
from serve_app.jobs.moment import Mark, PreviewMoment, StartedMoment
from serve_app.types import IpAdapterUse, JobFailure, JobResult, Kind, PictureFormat

MODEL = "your_model_id"
BASE = {"model": MODEL, "prompt": "a cat"}


def png(size=(64, 64), mode="RGB", colour="red"):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


class Files(dict):
    """Whatever the names of the results, there are files."""

    def get(self, key):
        return StoredFile(f"file {key}".encode(), "image/png")


@pytest.fixture
async def client(shared, service):
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=shared[1]), trust_env=False)
    async with openai.AsyncOpenAI(
        api_key="a", base_url="http://testserver/v1", http_client=http, max_retries=0
    ) as client:
        service.files = Files()
        yield client


def last(service):
    return service.jobs[max(service.jobs)].request


async def refused(call):
    with pytest.raises(openai.APIStatusError) as caught:
        await call
    error = caught.value.response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return caught.value.status_code, error


async def test_generation_answers_with_links_and_base64(client, service):
    reply = await client.images.generate(**BASE, n=2, size="512x256")
    request = last(service)
    spec = request.spec
    assert (spec.kind, spec.samples, spec.width, spec.height) == (Kind.TEXT2IMG, 2, 512, 256)
    assert request.safety is None  # there is no checker
    assert [image.url for image in reply.data] == [
        f"http://testserver/files/{key}" for key in request.output.keys
    ]
    texts = [base64.b64decode(image.b64_json).decode() for image in reply.data]
    assert texts == [f"file {key}" for key in request.output.keys]
    assert (reply.size, reply.output_format, reply.background) == ("512x256", "png", "opaque")
    assert (reply.id, reply.seed) == (max(service.jobs), spec.seed)
    assert reply.created > 1_700_000_000


@pytest.mark.parametrize(
    ("form", "has_url", "has_base64"), [("url", True, False), ("b64_json", False, True)]
)
async def test_one_form_of_response_is_had_by_asking(client, form, has_url, has_base64):
    (image,) = (await client.images.generate(**BASE, response_format=form)).data
    assert (image.url is not None, image.b64_json is not None) == (has_url, has_base64)


async def test_fields_of_ours_pass_beside_theirs(client, service):
    own = {"steps": 11, "seed": 7, "guidance_scale": 3, "negative_prompt": "dogs"}
    own |= {"num_inference_steps": 11, "lora_model": "contrast-fix"}
    own |= {"scheduler": "EulerDiscreteScheduler"}
    await client.images.generate(**BASE, user="somebody", extra_body=own)
    spec = last(service).spec
    assert (spec.steps, spec.seed, spec.guidance_scale) == (11, 7, 3)
    assert (spec.negative_prompt, spec.scheduler) == ("dogs", "EulerDiscreteScheduler")
    assert [use.id for use in spec.loras] == ["contrast-fix"]
    assert last(service).track_id == "somebody"


@pytest.mark.parametrize(
    ("quality", "share"), [("auto", 1), ("standard", 1), ("low", 0.5), ("high", 1.5), ("hd", 1.5)]
)
async def test_quality_is_a_share_of_the_models_own_steps(client, service, quality, share):
    own = next(entry for entry in service.catalogue if entry.id == MODEL).defaults.steps
    await client.images.generate(**BASE, quality=quality)
    assert last(service).spec.steps == min(50, round(own * share))
    await client.images.generate(**BASE, quality=quality, extra_body={"steps": 3})
    assert last(service).spec.steps == 3


@pytest.mark.parametrize(("form", "quality"), [("png", 100), ("jpeg", 60), ("webp", 0)])
async def test_format_and_compression_are_the_results(client, service, form, quality):
    wanted = {"output_format": form} | ({} if quality == 100 else {"output_compression": quality})
    reply = await client.images.generate(**BASE, **wanted)
    output = last(service).output
    assert (output.format, output.quality) == (PictureFormat(form), quality)
    assert (reply.data[0].url.rpartition(".")[2], reply.output_format) == (form, form)


async def test_checker_is_asked_where_there_is_one_unless_told_otherwise(client, service):
    service.has_checker = True
    await client.images.generate(**BASE, moderation="auto")
    assert last(service).safety is not None
    await client.images.generate(**BASE, extra_body={"safety_checker": "no"})
    assert last(service).safety is None


async def test_words_that_ran_are_told_where_they_are_others(client, service):
    (plain,) = (await client.images.generate(**BASE)).data
    assert plain.revised_prompt is None
    (styled,) = (await client.images.generate(model="midjourney-v4-painta", prompt="a cat")).data
    assert styled.revised_prompt == last(service).spec.prompt != "a cat"


async def test_edit_with_a_mask_repaints_and_without_paints_over(client, service):
    await client.images.edit(**BASE, image=png(), mask=png(mode="RGBA"))
    request = last(service)
    assert request.spec.kind is Kind.INPAINT
    assert request.mask_image.is_alpha_mask
    assert [field for field, _ in service.inputs] == ["init_image", "mask_image"]
    assert bytes(service.inputs[0][1].view) == png()
    own = {"strength": 0.5, "steps": 8}
    await client.images.edit(**BASE, image=[png()], extra_body=own)
    spec = last(service).spec
    assert (spec.kind, spec.strength, spec.steps) == (Kind.IMG2IMG, 0.5, 8)
    assert spec.fit is not None  # its size is the picture's


async def test_second_image_is_for_an_ip_adapter(client, service):
    own = {"ip_adapter_id": "ip-adapter-plus_sd15"}
    await client.images.edit(**BASE, image=[png(), png(colour="blue")], extra_body=own)
    assert last(service).spec.ip_adapter == IpAdapterUse(id=own["ip_adapter_id"], scale=0.6)
    shown = {field: bytes(picture.view) for field, picture in service.inputs}
    assert shown == {"init_image": png(), "ip_adapter_image": png(colour="blue")}


async def test_models_are_listed_and_found(client, service):
    listed = [model.id async for model in client.models.list()]
    assert listed == [entry.id for entry in service.catalogue]
    raw = await client.models.with_raw_response.list()
    assert raw.headers["content-type"] == "application/json"
    assert (await client.models.retrieve(MODEL)).object == "model"
    status, error = await refused(client.models.retrieve("gpt-image-1"))
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")


IMAGE = {"image": png()}


@pytest.mark.parametrize(
    ("call", "changes", "param", "words"),
    [
        pytest.param("generate", {"size": "7x7"}, "size", "WIDTHxHEIGHT", id="7x7"),
        pytest.param("generate", {"size": "1536x1024"}, "size", "64 to 1024", id="too large"),
        pytest.param("generate", {"size": "500x500"}, "size", "multiples of 8", id="odd"),
        pytest.param("generate", {"size": "big"}, "size", "WIDTHxHEIGHT", id="no size"),
        pytest.param("generate", {"n": 0}, "n", "between 1 and 4", id="n 0"),
        pytest.param("generate", {"n": 5}, "n", "between 1 and 4", id="n 5"),
        pytest.param("generate", {"prompt": ""}, "prompt", "required", id="no prompt"),
        pytest.param("generate", {"quality": "best"}, "quality", "one of", id="quality"),
        pytest.param("generate", {"output_format": "gif"}, "output_format", "one of", id="gif"),
        pytest.param(
            "generate", {"output_compression": 50}, "output_compression", "jpeg", id="png loses"
        ),
        pytest.param(
            "generate", {"background": "transparent"}, "background", "every pixel", id="transparent"
        ),
        pytest.param("generate", {"style": "vivid"}, "style", "enhance_style", id="style"),
        pytest.param("generate", {"moderation": "low"}, "moderation", "strictness", id="low"),
        pytest.param("generate", {"response_format": "x"}, "response_format", "one of", id="form"),
        pytest.param(
            "generate", {"stream": True, "partial_images": 4}, "partial_images", "3", id="partials"
        ),
        pytest.param(
            "generate", {"extra_body": {"steps": "x"}}, "steps", "integer", id="field of ours"
        ),
        pytest.param("edit", {"image": [png()] * 3}, "image", "3 images", id="three images"),
        pytest.param("edit", {"image": [png()] * 2}, "image", "ip_adapter_id", id="two images"),
        pytest.param(
            "edit", IMAGE | {"input_fidelity": "high"}, "input_fidelity", "strength", id="fidelity"
        ),
        pytest.param("edit", IMAGE | {"n": 0}, "n", "between 1 and 4", id="n 0 of an edit"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(client, call, changes, param, words):
    status, error = await refused(getattr(client.images, call)(**{**BASE, **changes}))
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["code"] == "invalid_value"
    assert words in error["message"]


async def test_unknown_model_and_bad_key_have_their_codes(client, service):
    status, error = await refused(client.images.generate(model="gpt-image-1", prompt="a"))
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    status, error = await refused(client.images.generate(prompt="a"))
    assert (status, error["param"]) == (400, "model")  # there are several
    service.keys = {"other": "key_a"}
    for call in (client.images.generate(**BASE), client.models.retrieve(MODEL)):
        with pytest.raises(openai.AuthenticationError) as caught:
            await call
        assert caught.value.response.json()["error"]["code"] == "invalid_api_key"


async def test_failures_of_the_job_have_their_status(client, service):
    message = "The mask_image must have the size of the init_image."
    service.outcome = JobFailure(
        code="invalid_image", message=message, fields={"mask_image": [message]}
    )
    status, error = await refused(client.images.edit(**BASE, image=png(), mask=png()))
    assert (status, error["param"]) == (400, "mask")
    assert error["message"] == "The mask must have the size of the image."
    service.outcome = JobFailure(code="generation_failed", message="Failed, Try Again")
    status, error = await refused(client.images.generate(**BASE))
    assert (status, error["type"], error["code"]) == (500, "server_error", "generation_failed")
    for flagged in ((True,), (False, True)):
        service.outcome = JobResult(keys=(), nsfw=flagged, generation_time_s=1.0)
        status, error = await refused(client.images.generate(**BASE))
        assert (status, error["code"]) == (400, "moderation_blocked")


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [("out_of_memory", 503, "5"), ("generation_failed", 500, None), ("invalid_image", 400, None)],
)
async def test_failure_that_is_worth_another_try_says_when(
    client, service, code, status, retry_after
):
    service.outcome = JobFailure(code=code, message="Failed, Try Again")
    with pytest.raises(openai.APIStatusError) as caught:
        await client.images.generate(**BASE)
    headers = caught.value.response.headers
    assert (caught.value.status_code, headers.get("retry-after")) == (status, retry_after)


async def test_job_that_takes_too_long_is_cancelled(client, service):
    service.outcome = None
    with pytest.raises(openai.InternalServerError) as caught:
        await client.images.generate(**BASE)
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "30")
    assert service.holds == [600.0]
    assert service.jobs[max(service.jobs)].state == "cancelled"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/images/generations", 405), ("POST", "/v1/x", 404)]
)
async def test_wrong_paths_are_answered_in_the_shape(api, method, path, status):
    answer = await api.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == "no_such_call"


async def test_body_that_is_none_is_answered_in_the_shape(api):
    answer = await api.http.post("/v1/images/generations", content=b"{")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_body_over_the_limit_is_answered_in_the_shape(service):
    app = create_api(service, HttpConfig(max_body_bytes=1024), JobsConfig())
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://a"
    ) as http:
        files = {"image": bytes(2000)}
        answer = await http.post("/v1/images/edits", data=BASE, files=files)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def shown(step):
    return PreviewMoment(Mark(1, 0, step, step + 1), f"jpeg {step}".encode(), step, 10)


@pytest.mark.parametrize(
    ("wanted", "told"), [(0, []), (1, [5]), (2, [4, 7]), (3, [3, 5, 8])], ids=range(4)
)
async def test_stream_tells_as_many_previews_as_were_asked_for(client, service, wanted, told):
    service.moments = [StartedMoment(Mark(run=1)), None, *(shown(step) for step in range(1, 10))]
    stream = await client.images.generate(**BASE, stream=True, partial_images=wanted, n=2)
    events = [event async for event in stream]
    *partial, first, second = events
    assert [base64.b64decode(event.b64_json).decode() for event in partial] == [
        f"jpeg {step}" for step in told
    ]
    assert [event.partial_image_index for event in partial] == list(range(wanted))
    assert {event.type for event in partial} <= {"image_generation.partial_image"}
    assert {event.output_format for event in partial} <= {"jpeg"}
    for event, key in zip((first, second), last(service).output.keys, strict=True):
        assert event.type == "image_generation.completed"
        assert base64.b64decode(event.b64_json).decode() == f"file {key}"
        assert (event.output_format, event.usage.total_tokens) == ("png", 0)


async def test_edit_streams_under_its_own_names(client, service):
    service.moments = [shown(9)]
    stream = await client.images.edit(**BASE, image=png(), stream=True, partial_images=1)
    assert [event.type async for event in stream] == [
        "image_edit.partial_image",
        "image_edit.completed",
    ]


async def test_failure_in_a_stream_is_an_event_that_the_client_raises(client, service):
    service.outcome = JobFailure(code="generation_failed", message="Failed, Try Again")
    stream = await client.images.generate(**BASE, stream=True)
    with pytest.raises(openai.APIError, match="Failed, Try Again"):
        [event async for event in stream]


async def test_stream_that_breaks_off_ends_its_job(client, service):
    service.outcome, service.moments = None, [None]
    stream = await client.images.generate(**BASE, stream=True)
    with pytest.raises(openai.APIError):
        [event async for event in stream]
    assert service.jobs[max(service.jobs)].state == "cancelled"
