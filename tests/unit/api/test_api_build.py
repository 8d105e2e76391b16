"""From the documented request to the job, and each parameter on its way."""

import pytest

from serve_app.types import Api, Kind, SafetyAction

INPAINT = "/api/v4/dreambooth/inpaint"
TEXT2IMG = "/api/v4/dreambooth"
IMG2IMG = "/api/v4/dreambooth/img2img"


async def test_documented_inpaint_request_becomes_the_documented_job(api, inpaint_body):
    request = await api.last_request(INPAINT, inpaint_body)
    spec = request.spec
    assert spec.model_dump(exclude={"seed"}) == {
        "model_id": "your_model_id",
        "kind": Kind.INPAINT,
        "prompt": "a cat sitting on a bench",
        "negative_prompt": "",
        "height": 512,
        "width": 512,
        "samples": 1,
        "steps": 30,
        "guidance_scale": 7.5,
        "strength": 0.7,
        "scheduler": "UniPCMultistepScheduler",
        "use_karras_sigmas": True,
        "algorithm_type": None,
        "clip_skip": 1,
        "tomesd": True,
        "loras": (),
        "vae": None,
        "embeddings": (),
        "ip_adapter": None,
        "controlnets": (),
        "guess_mode": False,
        "control_start": 0.0,
        "control_end": 1.0,
        "foreign": "",
        "expand": True,
        "upscale": 1,
        "upscaler": None,
        "highres_fix": False,
        "self_attention": False,
        "panorama": False,
        "exclusive": False,
        "full_frame": False,
        "fit": None,
        "outpaint": None,
        "masking": {"mode": "auto", "invert": False, "expand_px": 0, "blur_px": None},
        "fill": "original",
        "padding_px": None,
        "only_masked": False,
    }
    assert request.init_image.url == inpaint_body["init_image"]
    assert request.mask_image.url == inpaint_body["mask_image"]
    assert request.init_image.field == "init_image"
    assert request.mask_image.field == "mask_image"
    assert request.safety is None
    assert (request.webhook, request.track_id) == (None, None)
    assert (request.api, request.key_id) == (Api.V4, "open")
    assert request.base_url == "http://testserver"
    assert len(request.output.keys) == 1


async def test_absent_seed_is_drawn_anew(api, text_body):
    seeds = {(await api.last_request(TEXT2IMG, text_body)).spec.seed for _ in range(5)}
    assert len(seeds) == 5


@pytest.mark.parametrize("absent", [None, "", "null", "None"])
async def test_absent_values_mean_the_models_defaults(api, absent):
    flags = [
        "safety_checker", "safety_checker_type", "tomesd", "use_karras_sigmas", "multi_lingual",
        "panorama", "self_attention", "highres_fix", "base64", "temp", "instant_response",
        "enhance_prompt",
    ]  # fmt: skip
    names = [
        "width", "height", "samples", "steps", "num_inference_steps", "guidance_scale", "strength",
        "scheduler", "algorithm_type", "vae", "lora_model", "lora_strength", "embeddings_model",
        "upscale", "clip_skip", "webhook", "ip_adapter_id", "ip_adapter_scale", "ip_adapter_image",
        "enhance_style", "seed",
    ]  # fmt: skip
    if absent != "None":  # the word might be either, and in a text it is one
        names += [*flags, "negative_prompt", "track_id"]
    required = {"model_id": "your_model_id", "prompt": "a"}
    request = await api.last_request(TEXT2IMG, required | dict.fromkeys(names, absent))
    spec = request.spec
    assert (spec.height, spec.width, spec.samples, spec.steps) == (512, 512, 1, 31)
    assert (spec.guidance_scale, spec.scheduler) == (7.5, "UniPCMultistepScheduler")
    assert (spec.tomesd, spec.use_karras_sigmas, spec.clip_skip) == (True, True, 1)
    assert request.safety is SafetyAction.TEXT
    assert (request.output.base64, request.output.temp) == (False, False)
    assert (spec.loras, spec.vae, spec.embeddings, spec.upscale) == ((), None, (), 1)
    assert (spec.ip_adapter, request.webhook) == (None, None)


async def test_word_none_is_a_word_in_a_text(api, text_body):
    body = text_body | {"prompt": "None", "negative_prompt": "none", "track_id": "none"}
    request = await api.last_request(TEXT2IMG, body)
    assert (request.spec.prompt, request.spec.negative_prompt) == ("None", "none")
    assert request.track_id == "none"


async def test_word_none_of_a_needed_picture_is_a_missing_one(api, text_body):
    reply = await api.reply(IMG2IMG, text_body | {"init_image": "None"})
    assert reply["message"] == {"init_image": ["The init image field is required."]}


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ({"width": "513"}, "width", 512),
        ({"width": 100000}, "width", 1024),
        ({"height": 767.0}, "height", 760),
        ({"steps": "80"}, "steps", 50),
        ({"steps": 0}, "steps", 1),
        ({"num_inference_steps": "21"}, "steps", 21),
        ({"steps": 20, "num_inference_steps": "21"}, "steps", 21),
        ({" num_inference_steps": "22"}, "steps", 22),
        ({" num_inference_steps": "22", "num_inference_steps": 23}, "steps", 23),
        ({"clip_skip": "2"}, "clip_skip", 2),
        ({"clipskip": 3}, "clip_skip", 3),
        ({"seed": 10**29}, "seed", 10**29 % 2**32),
        ({"seed": "0"}, "seed", 0),
        ({"samples": "4"}, "samples", 4),
        ({"scheduler": "DEIS"}, "scheduler", "DEISMultistepScheduler"),
        ({"scheduler": "ddimscheduler"}, "scheduler", "DDIMScheduler"),
        ({"algorithm_type": "dpmsolver+++"}, "algorithm_type", "dpmsolver+++"),
        ({"algorithm_type": "none"}, "algorithm_type", None),
        ({"guidance_scale": "7"}, "guidance_scale", 7.0),
        ({"use_karras_sigmas": "no"}, "use_karras_sigmas", False),
        ({"tomesd": False}, "tomesd", False),
        ({"prompt": "a\0\ud800b"}, "prompt", "a\ufffdb"),
        ({"strength": 0.2}, "strength", 1.0),
        ({"highres_fix": "yes"}, "highres_fix", True),
        ({"self_attention": "yes"}, "self_attention", True),
        ({"panorama": "yes"}, "panorama", True),
        ({"upscale": "yes"}, "upscale", 2),
        ({"upscale": "3"}, "upscale", 3),
        ({"exclusive": "yes"}, "exclusive", True),
        ({"full_frame": "yes"}, "full_frame", True),
    ],
)
async def test_parameter_of_text2img_reaches_the_job(api, text_body, fields, attribute, expected):
    request = await api.last_request(TEXT2IMG, text_body | fields)
    assert getattr(request.spec, attribute) == expected


async def test_steps_of_inpaint_goes_by_the_documented_name(api, inpaint_body):
    body = inpaint_body | {"steps": 20, "num_inference_steps": 21}
    assert (await api.last_request(INPAINT, body)).spec.steps == 20


@pytest.mark.parametrize(
    ("fields", "ran"),
    [
        ({"guidance_scale": 7.5, "num_inference_steps": 30}, (1.5, 4)),
        ({"guidance_scale": 1, "num_inference_steps": 2}, (1, 2)),
        ({}, (1.5, 4)),
    ],
    ids=["more", "less", "absent"],
)
async def test_model_of_few_steps_is_asked_for_no_more(api, text_body, fields, ran):
    for name in ("guidance_scale", "num_inference_steps", "steps"):
        text_body.pop(name, None)
    body = text_body | {"model_id": "turbo"} | fields
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert (spec.guidance_scale, spec.steps) == ran
    meta = (await api.reply(TEXT2IMG, body))["meta"]
    assert (meta["guidance_scale"], meta["steps"]) == ran


@pytest.mark.parametrize(("strength", "steps"), [(1, 4), (0.5, 4), (0.25, 4), (0.2, 5), (0.07, 15)])
async def test_few_steps_leave_one_to_every_strength(api, text_body, strength, steps):
    picture = {"init_image": "https://a.example/i.png", "num_inference_steps": 30}
    body = text_body | picture | {"model_id": "turbo", "strength": strength}
    spec = (await api.last_request(IMG2IMG, body)).spec
    assert (spec.steps, spec.strength) == (steps, strength)
    assert int(spec.steps * spec.strength) >= 1


@pytest.mark.parametrize(
    ("steps", "strength", "runs"),
    [(1, 0.99, False), (2, 0.45, False), (3, 0.2, False), (2, 0.5, True), (10, 0.1, True)],
)
async def test_one_whole_step_has_to_run(api, text_body, steps, strength, runs):
    picture = {"init_image": "https://pictures.example/a.png"}
    body = text_body | picture | {"num_inference_steps": steps, "strength": strength}
    answer = (await api.post("/api/v4/dreambooth/img2img", body)).json()
    assert ("strength" in str(answer.get("message"))) is not runs, answer


@pytest.mark.parametrize(
    ("number", "is_taken"),
    [(2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False)],
)
async def test_track_id_is_an_integer_of_64_bits(api, text_body, number, is_taken):
    answer = (await api.post("/api/v4/dreambooth", text_body | {"track_id": number})).json()
    assert ("track_id" not in str(answer.get("message"))) is is_taken


async def test_img2img_keeps_its_picture_and_strength(api, text_body):
    body = text_body | {"init_image": "https://a.example/i.png", "strength": "0.4"}
    request = await api.last_request(IMG2IMG, body)
    assert request.init_image.url == "https://a.example/i.png"
    assert request.mask_image is None
    assert request.spec.strength == 0.4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"num_inference_steps": 0, "strength": 0.9}, "num_inference_steps"),
        ({"num_inference_steps": 1}, "num_inference_steps"),
        ({"num_inference_steps": 20, "strength": 0.01}, "strength"),
        ({"steps": 1, "strength": 0.9}, "strength"),
        ({"strength": 0}, "strength"),
    ],
)
async def test_schedule_without_a_step_names_the_field_that_asks_for_it(
    api, text_body, fields, field
):
    body = text_body | {"init_image": "https://a.example/i.png"} | fields
    message = (await api.reply(IMG2IMG, body))["message"]
    assert list(message) == [field]
    assert "not one would run" in message[field][0]


async def test_inline_pictures_are_kept_and_not_repeated(api, inpaint_body, service):
    data = "data:image/png;base64,iVBORw0KGgo="
    reply = await api.reply(INPAINT, inpaint_body | {"init_image": data, "mask_image": "aGk="})
    assert service.inputs == [("init_image", data), ("mask_image", "aGk=")]
    assert (reply["meta"]["init_image"], reply["meta"]["mask_image"]) == ("", "")
    assert service.jobs[reply["id"]].request.init_image.stored_key == "inputs/1"


async def test_bad_field_keeps_no_picture(api, inpaint_body, service):
    await api.reply(INPAINT, inpaint_body | {"strength": 2})
    await api.reply(INPAINT, inpaint_body | {"vae": "mine"})
    assert service.inputs == []


@pytest.mark.parametrize("action", list(SafetyAction))
async def test_safety_checker_type_is_the_policy(api, text_body, action):
    body = text_body | {"safety_checker": "yes", "safety_checker_type": action.value.upper()}
    assert (await api.last_request(TEXT2IMG, body)).safety is action


async def test_safety_checker_no_checks_nothing(api, text_body):
    body = text_body | {"safety_checker": "no", "safety_checker_type": "black"}
    assert (await api.last_request(TEXT2IMG, body)).safety is None


async def test_base64_and_temp_reach_the_output_plan(api, text_body):
    body = text_body | {"base64": "yes", "temp": True, "samples": 2}
    output = (await api.last_request(TEXT2IMG, body)).output
    assert (output.base64, output.temp, len(output.keys)) == (True, True, 2)


async def test_enhancement_is_the_models_own(api, text_body, load_golden):
    body = text_body | {"model_id": "midjourney-v4-painta", "prompt": "a cat sitting on a bench"}
    meta = load_golden("inpaint_success")["meta"]
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert (spec.prompt, spec.negative_prompt) == (meta["prompt"], meta["negative_prompt"])
    spec = (await api.last_request(TEXT2IMG, body | {"enhance_prompt": "no"})).spec
    assert (spec.prompt, spec.negative_prompt) == ("a cat sitting on a bench", "")


async def test_users_negative_prompt_comes_first(api, text_body):
    body = text_body | {"model_id": "midjourney-v4-painta", "negative_prompt": "dogs"}
    spec = (await api.last_request(TEXT2IMG, body)).spec
    assert spec.negative_prompt.startswith("dogs ((out of frame))")


async def test_webhook_that_may_not_be_called_is_refused_with_the_call(api, text_body, service):
    service.closed_webhooks.add("https://a.example:22/")
    body = text_body | {"init_image": "aGk=", "webhook": "https://a.example:22/"}
    reply = await api.reply(IMG2IMG, body)
    assert (reply["status"], list(reply["message"])) == ("error", ["webhook"])
    assert (service.jobs, service.inputs) == ({}, [])
    answer = await api.post("/api/v6/images/img2img", body)
    assert answer.status_code == 400


async def test_webhook_and_track_id_reach_the_job(api, text_body):
    body = text_body | {"webhook": "https://a.example/h?t=1", "track_id": 77}
    request = await api.last_request(TEXT2IMG, body)
    assert (request.webhook, request.track_id) == ("https://a.example/h?t=1", 77)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("multi_lingual", "yes"),
        ("ip_adapter_id", "ip-adapter_sd15"),
    ],
)
async def test_parameter_that_is_not_honoured_is_answered_with_a_reason(
    api, text_body, field, value, service
):
    reply = await api.reply(TEXT2IMG, text_body | {field: value})
    assert reply["status"] == "error"
    assert list(reply["message"]) == [field]
    assert not service.jobs


async def test_values_that_ask_for_nothing_are_fine(api, text_body):
    body = text_body | {
        "multi_lingual": "no", "panorama": "no", "upscale": "1", "highres_fix": "no",
        "lora_model": "", "lora_strength": "0.5", "ip_adapter_scale": 0.6, "lora": "x",
        "Seed": 5, "full_url": "no", "free_u": "yes", "unknown": {"a": [1]},
    }  # fmt: skip
    assert await api.last_request(TEXT2IMG, body)


async def test_form_body_is_read(api):
    data = {"model_id": "your_model_id", "prompt": "a cat", "width": "256", "seed": "", "key": "x"}
    answer = await api.http.post(TEXT2IMG, data=data)
    assert answer.json()["status"] == "success"
    assert answer.json()["meta"]["W"] == 256


async def test_prompt_to_translate_is_marked_inside_the_whole(api, text_body, service):
    service.can_translate = True
    reply = await api.reply(TEXT2IMG, text_body | {"multi_lingual": "yes", "prompt": "eine Katze"})
    spec = service.jobs[reply["id"]].request.spec
    assert (spec.foreign, spec.prompt) == ("eine Katze", "eine Katze")
    assert reply["meta"]["multi_lingual"] == "yes"


@pytest.mark.parametrize(
    ("fields", "is_expanded"),
    [({}, True), ({"enhance_prompt": "no"}, False), ({"model_id": "coarse"}, False)],
    ids=["enhanced", "not", "model-without-words"],
)
async def test_expander_may_go_on_with_enhanced_prompts(api, text_body, fields, is_expanded):
    assert (await api.last_request(TEXT2IMG, text_body | fields)).spec.expand is is_expanded
