"""The bodies of replies against the documented ones, at the HTTP level."""

import pytest

from serve_app import errors
from serve_app.config import HttpConfig, JobsConfig
from serve_app.failure import to_failure
from serve_app.types import JobFailure, JobResult, JobState

INPAINT = "/api/v4/dreambooth/inpaint"
TEXT2IMG = "/api/v4/dreambooth"
FETCH = "/api/v4/dreambooth/fetch"
LINK = "http://testserver/files/generations/dc639bd6-d605-42c7-950e-48c531124d0d-0.png"


def assert_holds(reply, documented):
    """Every documented key is there, with the value, in the documented order."""
    shown = {name: reply[name] for name in reply if name in documented}
    assert shown == documented
    assert list(shown) == list(documented)


async def processing(api, body, path=TEXT2IMG):
    api.service.outcome = None
    return await api.reply(path, body)


async def test_success_of_inpaint_is_the_documented_reply(api, inpaint_body, load_golden):
    documented = load_golden("inpaint_success")
    meta = documented["meta"]
    asked = {"model_id": meta["model_id"], "scheduler": meta["scheduler"], "seed": meta["seed"]}
    reply = await api.reply(INPAINT, inpaint_body | asked | {"steps": "50"})
    assert_holds(reply["meta"], meta)
    assert reply["output"] == [LINK]
    assert reply["output"][0].endswith(documented["output"][0].rpartition("/")[2])
    own = {"output": reply["output"], "meta": reply["meta"]}
    assert_holds(reply, documented | own)


async def test_success_has_the_later_keys_in_captured_order(api, text_body):
    reply = await api.reply(TEXT2IMG, text_body | {"samples": 2})
    assert list(reply) == [
        "status", "generationTime", "id", "output", "proxy_links", "nsfw_content_detected",
        "webhook_status", "meta", "tip", "future_links",
    ]  # fmt: skip
    assert reply["proxy_links"] == reply["future_links"] == reply["output"]
    assert len(reply["output"]) == 2
    assert isinstance(reply["id"], int)
    assert isinstance(reply["generationTime"], float)
    assert reply["meta"]["id"] == str(reply["id"])
    assert reply["meta"]["safetychecker"] == reply["meta"]["safety_checker"] == "yes"


async def test_nsfw_is_told_when_any_picture_is(api, text_body):
    api.service.outcome = JobResult(keys=(), nsfw=(False, True), generation_time_s=1.0)
    assert (await api.reply(TEXT2IMG, text_body))["nsfw_content_detected"] is True


@pytest.mark.parametrize(
    ("scheduler", "algorithm", "runs", "karras", "algorithm_runs"),
    [
        pytest.param("DDIM", "dpmsolver++", "DDIMScheduler", "no", "no", id="takes-neither"),
        pytest.param("UniPCMultistep", None, "UniPCMultistepScheduler", "yes", "no", id="karras"),
        pytest.param("IPNDM", None, "PNDMScheduler", "no", "no", id="substitute"),
        pytest.param(
            "DPMSolverMultistep", "dpmsolver+++", "DPMSolverMultistepScheduler", "yes",
            "dpmsolver+++", id="spelling",
        ),
        pytest.param(
            "DPMSolverMultistep", "dpmsolver", "DPMSolverMultistepScheduler", "yes",
            "dpmsolver++", id="given-up",
        ),
    ],
)  # fmt: skip
async def test_meta_of_processing_shows_what_will_run(
    api, text_body, scheduler, algorithm, runs, karras, algorithm_runs
):
    body = text_body | {"scheduler": scheduler, "use_karras_sigmas": "yes"}
    if algorithm is not None:
        body["algorithm_type"] = algorithm
    reply = await processing(api, body)
    names = ("scheduler", "use_karras_sigmas", "algorithm_type")
    assert tuple(reply["meta"][name] for name in names) == (runs, karras, algorithm_runs)


async def test_meta_shows_what_ran(api, text_body):
    api.service.outcome = JobResult(
        keys=(), nsfw=(False,), generation_time_s=1.0, ran={"scheduler": "DDIMScheduler"}
    )
    reply = await api.reply(TEXT2IMG, text_body | {"scheduler": "KarrasVeScheduler"})
    assert reply["meta"]["scheduler"] == "DDIMScheduler"


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"samples": 3, "seed": 2**32 + 5}, {"n_samples": 3, "seed": 5}),
        ({"width": "643", "height": 2000}, {"W": 640, "H": 1024}),
        ({"width": 3000, "height": 256, "panorama": "yes"}, {"W": 2048, "H": 256}),
        ({"steps": 80, "guidance_scale": "5"}, {"steps": 50, "guidance_scale": 5.0}),
        ({"steps": 0}, {"steps": 1}),
        ({"clip_skip": "2", "clipskip": 3}, {"clip_skip": 2}),
        ({"panorama": True, "self_attention": "no"}, {"panorama": "yes", "self_attention": "no"}),
        ({"self_attention": 1, "highres_fix": "yes"}, {"self_attention": "yes", "panorama": "no"}),
        ({"highres_fix": "yes"}, {"highres_fix": "yes"}),
        ({"upscale": "yes"}, {"upscale": "2", "W": 512, "H": 512}),
        ({"upscale": "None"}, {"upscale": "no"}),
        ({"upscale": 3}, {"upscale": "3"}),
        ({"tomesd": "no"}, {"tomesd": "no"}),
        ({"vae": "kl-f8", "embeddings_model": "badhands"}, {"vae": "kl-f8"}),
        ({"embeddings_model": "badhands,None"}, {"embeddings": "badhands"}),
        ({"safety_checker": "no"}, {"safetychecker": "no", "safety_checker": "no"}),
        ({"safety_checker_type": "BLUR"}, {"safety_checker_type": "blur"}),
        ({"temp": "yes", "base64": True}, {"temp": "yes", "base64": "yes"}),
        ({"enhance_prompt": "no"}, {"enhance_prompt": "no"}),
        ({"webhook": "https://a.example/h", "track_id": 7}, {"track_id": 7}),
        ({"strength": 0.35}, {"strength": 0.35}),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
async def test_meta_shows_each_value_as_it_is_painted_with(api, text_body, fields, shown):
    path = f"{TEXT2IMG}/img2img" if "strength" in fields else TEXT2IMG
    body = text_body | {"init_image": "https://a.example/i.png"} | fields
    meta = (await api.reply(path, body))["meta"]
    assert {name: meta[name] for name in shown} == shown


@pytest.mark.parametrize(
    "ran",
    [
        {"prompt": "a cat sks"},
        {"tomesd": "no"},
        {"clip_skip": 1},
        {"negative_prompt": ""},
        {"highres_fix": "no"},
        {"panorama": "no"},
    ],
    ids=lambda ran: next(iter(ran)),
)
async def test_meta_shows_what_the_painter_says_of_each_key(api, text_body, ran):
    api.service.outcome = JobResult(keys=(), nsfw=(False,), generation_time_s=1.0, ran=ran)
    asked = {"negative_prompt": "dogs", "clip_skip": 2, "highres_fix": "yes", "panorama": "yes"}
    meta = (await api.reply(TEXT2IMG, text_body | asked))["meta"]
    plain = {"prompt": "a cat", "tomesd": "yes", "highres_fix": "yes", "panorama": "yes"}
    expected = plain | asked | ran
    assert {name: meta[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (
            TEXT2IMG,
            "prompt model_id negative_prompt scheduler safetychecker W H guidance_scale seed steps "
            "n_samples full_url upscale multi_lingual panorama self_attention embeddings lora "
            "outdir file_prefix",
        ),
        (
            f"{TEXT2IMG}/img2img",
            "prompt model_id scheduler safetychecker negative_prompt W H guidance_scale init_image "
            "steps n_samples strength multi_lingual full_url upscale seed outdir file_prefix",
        ),
    ],
)
async def test_meta_begins_with_the_documented_keys(api, text_body, path, keys):
    meta = (await api.reply(path, text_body | {"init_image": "https://a.example/i"}))["meta"]
    assert list(meta)[: len(keys.split())] == keys.split()


async def test_processing_tells_where_and_when_to_look(api, text_body):
    reply = await processing(api, text_body)
    assert list(reply) == [
        "status", "tip", "eta", "messege", "message", "webhook_status", "fetch_result", "id",
        "output", "proxy_links", "nsfw_content_detected", "meta", "progress", "queue_place",
        "future_links",
    ]  # fmt: skip
    assert reply["status"] == "processing"
    assert reply["fetch_result"] == f"http://testserver/api/v3/dreambooth/fetch/{reply['id']}"
    assert (reply["output"], reply["future_links"]) == ([], [LINK])
    assert (reply["proxy_links"], reply["nsfw_content_detected"]) == ([], False)
    assert reply["eta"] == 5
    assert isinstance(reply["eta"], int)


@pytest.mark.parametrize(("max_eta_s", "progress", "eta"), [(60, 0, 13), (3, 0, 3), (60, 0.99, 1)])
async def test_eta_is_the_estimate_within_bounds(make_api, text_body, max_eta_s, progress, eta):
    api = make_api(http=HttpConfig(max_eta_s=max_eta_s))
    first = await processing(api, text_body)
    assert first["eta"] == min(13, max_eta_s)
    api.service._update(first["id"], progress=progress)
    fetched = await api.reply(FETCH, {"request_id": first["id"]})
    assert fetched["eta"] == eta
    assert isinstance(fetched["eta"], int)


@pytest.mark.parametrize(
    ("path", "fetch_path"),
    [
        ("/api/v3/dreambooth", "/api/v3/dreambooth/fetch/"),
        ("/api/v4/dreambooth", "/api/v3/dreambooth/fetch/"),
        ("/api/v6/images/text2img", "/api/v6/images/fetch/"),
        ("/api/v7/images/text-to-image", "/api/v7/images/fetch/"),
    ],
)
async def test_fetch_result_leads_to_the_running_job(api, text_body, path, fetch_path, load_golden):
    reply = await processing(api, text_body, path)
    assert reply["fetch_result"] == f"http://testserver{fetch_path}{reply['id']}"
    assert_holds(await api.reply(reply["fetch_result"], {"key": ""}), load_golden("fetch_running"))


@pytest.mark.parametrize("as_type", [int, str, float, lambda number: f"{number}.0"])
async def test_fetch_by_request_id_gives_the_result(api, text_body, as_type):
    first = await processing(api, text_body)
    api.service.outcome = JobResult(keys=(), nsfw=(False,), generation_time_s=1.0)
    api.service.settle(first["id"])
    reply = await api.reply(FETCH, {"key": "", "request_id": as_type(first["id"])})
    assert reply == {
        "status": "success",
        "id": first["id"],
        "output": [LINK],
        "proxy_links": [LINK],
        "nsfw_content_detected": False,
        "webhook_status": "",
    }


@pytest.mark.parametrize(
    ("webhook", "status"),
    [(None, "")] + [("https://a.example/h", state) for state in ("pending", "delivered", "failed")],
)
async def test_webhook_status_is_in_every_reply_about_a_result(api, text_body, webhook, status):
    api.service.delivery = status
    first = await processing(api, text_body | {"webhook": webhook})
    api.service.outcome = JobResult(keys=(), nsfw=(False,), generation_time_s=1.0)
    api.service.settle(first["id"])
    fetched = await api.reply(FETCH, {"key": "", "request_id": first["id"]})
    done = await api.reply("/api/v4/dreambooth", text_body | {"webhook": webhook})
    assert [reply["webhook_status"] for reply in (first, fetched, done)] == [status] * 3


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3/fetch/{}",
        "/api/v3/dreambooth/fetch/{}",
        "/api/v4/dreambooth/fetch/{}",
        "/api/v6/images/fetch/{}",
        "/api/v7/images/fetch/{}",
        "/api/v6/images/fetch/{}/",
    ],
)
async def test_every_form_of_fetch_answers_for_every_job_without_a_body(api, text_body, path):
    first = await processing(api, text_body)
    answer = await api.http.post(path.format(first["id"]))
    assert answer.json()["status"] == "processing"
    assert "progress" in answer.json()


async def test_running_fetch_gives_a_list_when_so_configured(make_api, text_body):
    api = make_api(http=HttpConfig(running_fetch_output="list"))
    first = await processing(api, text_body)
    assert (await api.reply(FETCH, {"request_id": first["id"]}))["output"] == []


async def test_failed_job_is_the_documented_reply_to_a_fetch(api, text_body, load_golden):
    first = await processing(api, text_body)
    api.service.outcome = to_failure(errors.GenerationFailed())
    api.service.settle(first["id"])
    reply = await api.reply(FETCH, {"request_id": first["id"]})
    assert_holds(reply, load_golden("fetch_failed"))
    assert reply["reason"] == "generation_failed"


async def test_failed_job_is_the_documented_reply_to_its_own_call(api, text_body, load_golden):
    api.service.outcome = to_failure(errors.GenerationFailed())
    assert_holds(await api.reply(TEXT2IMG, text_body), load_golden("fetch_failed"))


async def test_failed_picture_names_its_field_in_both_replies(api, inpaint_body):
    text = "Unable to fetch image from provided URL"
    api.service.outcome = JobFailure(
        code="invalid_image", message=text, fields={"mask_image": [text]}
    )
    reply = await api.reply(INPAINT, inpaint_body)
    assert (reply["status"], reply["message"]) == ("error", {"mask_image": [text]})
    job_id = next(iter(api.service.jobs))
    reply = await api.reply(FETCH, {"request_id": job_id})
    assert (reply["status"], reply["message"]) == ("failed", f"mask_image: {text}")


async def test_failed_picture_has_a_real_code_on_v6(api, inpaint_body):
    api.service.outcome = JobFailure(
        code="invalid_image", message="Unreadable.", fields={"init_image": ["Unreadable."]}
    )
    answer = await api.post("/api/v6/images/inpaint", inpaint_body)
    assert answer.status_code == 400
    assert answer.json()["message"] == "init_image: Unreadable."


@pytest.mark.parametrize(
    "request_id",
    [1, "1", "abc", "1.5", 1.5, "-1", "9" * 30, "9" * 600, int("9" * 600), "x" * 5000, "²", "../1",
     True, [1]],
)  # fmt: skip
async def test_fetch_of_an_unknown_id_says_so(api, request_id, load_golden):
    reply = await api.reply(FETCH, {"key": "", "request_id": request_id})
    if isinstance(request_id, bool | list):
        assert reply["message"] == {
            "request_id": ["The request id must be an integer or a string."]
        }
    else:
        assert_holds(reply, load_golden("fetch_unknown"))


async def test_fetch_without_an_id_names_the_field(api):
    reply = await api.reply(FETCH, {"key": ""})
    assert reply["message"] == {"request_id": ["The request id field is required."]}


async def test_fetch_of_another_keys_job_says_unknown(api, text_body, load_golden):
    api.service.keys = {"a": "alice", "b": "bob"}
    first = await processing(api, text_body | {"key": "a"})
    reply = await api.reply(FETCH, {"key": "b", "request_id": first["id"]})
    assert_holds(reply, load_golden("fetch_unknown"))
    reply = await api.reply(FETCH, {"key": "a", "request_id": first["id"]})
    assert reply["status"] == "processing"


async def test_cancel_ends_an_open_job(api, text_body):
    first = await processing(api, text_body)
    reply = await api.reply(f"/api/v4/dreambooth/cancel/{first['id']}", {"key": ""})
    assert (reply["status"], reply["id"]) == ("success", first["id"])
    assert api.service.jobs[first["id"]].state is JobState.CANCELLED
    reply = await api.reply(FETCH, {"request_id": first["id"]})
    assert (reply["status"], reply["reason"]) == ("failed", "cancelled")


async def test_cancel_of_a_finished_job_is_too_late(api, text_body):
    first = await api.reply(TEXT2IMG, text_body)
    reply = await api.reply("/api/v4/dreambooth/cancel", {"request_id": first["id"]})
    assert (reply["status"], reply["message"]) == ("error", "The request is already finished.")
    answer = await api.post("/api/v6/images/cancel", {"request_id": first["id"]})
    assert answer.status_code == 409


async def test_hold_is_the_configured_one(make_api, text_body):
    api = make_api(jobs=JobsConfig(hold_s=7))
    await api.reply(TEXT2IMG, text_body)
    reply = await api.reply(TEXT2IMG, text_body | {"instant_response": "yes"})
    assert api.service.holds == [7]  # `instant_response` waits for nothing
    assert reply["status"] == "processing"


async def test_public_url_begins_every_link(make_api, text_body):
    api = make_api(http=HttpConfig(public_url="https://img.example/sd/"))
    first = await processing(api, text_body)
    assert first["fetch_result"].startswith("https://img.example/sd/api/v3/")
    assert first["future_links"][0].startswith("https://img.example/sd/files/generations/")


async def test_links_begin_with_the_host_that_was_asked(api, text_body):
    reply = await api.reply(TEXT2IMG, text_body, headers={"host": "gpu-1.lan:8000"})
    assert reply["output"][0].startswith("http://gpu-1.lan:8000/files/")


@pytest.mark.parametrize("host", ['a"><script>', "user@evil.example", "a/b", "a b"])
async def test_hostile_host_header_gets_into_no_link(api, text_body, host):
    reply = await api.reply(TEXT2IMG, text_body, headers={"host": host})
    assert reply["output"][0].startswith("http://testserver/files/")
