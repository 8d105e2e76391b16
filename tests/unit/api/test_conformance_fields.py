"""The documented request fields (API reference, section 5), a test per row, named after the row.

`docs/conformance.md` lists the rows. What a field does to a picture is tested where it is done.
"""

import pytest

from serve_app.types import Kind, LoraUse, SafetyAction

PATHS = {
    "T": "/api/v4/dreambooth",
    "I": "/api/v4/dreambooth/img2img",
    "P": "/api/v4/dreambooth/inpaint",
}
KINDS = {"T": Kind.TEXT2IMG, "I": Kind.IMG2IMG, "P": Kind.INPAINT}
BASE = {
    "key": "k",
    "model_id": "your_model_id",
    "prompt": "a cat",
    "init_image": "https://a.example/i.png",
    "mask_image": "https://a.example/m.png",
}

# Row of the table: kinds that have it, as the vendor sends it, and what becomes of it.
ADAPTER = {
    "ip_adapter_id": "ip-adapter-plus_sd15",
    "ip_adapter_image": "https://a.b/c.png",
}
HONOURED = {
    "key": ("TIP", {"key": "k"}, lambda job: job.key_id == "owner of k"),
    "model_id": ("TIP", {}, lambda job: job.spec.model_id == "your_model_id"),
    "prompt": ("TIP", {"prompt": "a dog"}, lambda job: job.spec.prompt == "a dog"),
    "negative_prompt": ("TIP", {"negative_prompt": "b"}, lambda j: j.spec.negative_prompt == "b"),
    "init_image": ("IP", {}, lambda job: job.init_image.url == BASE["init_image"]),
    "mask_image": ("P", {}, lambda job: job.mask_image.url == BASE["mask_image"]),
    "width, height": (
        "TIP",
        {"width": "640", "height": 384.0},
        lambda job: (job.spec.width, job.spec.height) == (640, 384),
    ),
    "aspect_ratio": ("TIP", {"aspect_ratio": "none"}, lambda job: job.spec.width == 512),
    "samples": ("TIP", {"samples": "3"}, lambda j: (j.spec.samples, len(j.output.keys)) == (3, 3)),
    "num_inference_steps": ("TIP", {"num_inference_steps": "21"}, lambda job: job.spec.steps == 21),
    "steps": ("TIP", {"steps": "21"}, lambda job: job.spec.steps == 21),
    "safety_checker": ("TIP", {"safety_checker": "no"}, lambda job: job.safety is None),
    "safety_checker_type": (
        "TIP",
        {"safety_checker": "yes", "safety_checker_type": "pixelate"},
        lambda job: job.safety is SafetyAction.PIXELATE,
    ),
    "enhance_prompt": (
        "TIP",
        {"model_id": "midjourney-v4-painta", "enhance_prompt": "yes"},
        lambda job: job.spec.prompt.startswith(" a cat DSLR photography"),
    ),
    "enhance_style": (
        "TIP",
        {"enhance_style": "anime"},
        lambda job: job.spec.prompt.startswith(" a cat anime artwork"),
    ),
    "guidance_scale": ("TIP", {"guidance_scale": "5"}, lambda job: job.spec.guidance_scale == 5),
    "strength": ("IP", {"strength": "0.4"}, lambda job: job.spec.strength == 0.4),
    "scheduler": (
        "TIP",
        {"scheduler": "PNDMScheduler"},
        lambda job: job.spec.scheduler == "PNDMScheduler",
    ),
    "seed": ("TIP", {"seed": "99999999999"}, lambda job: job.spec.seed == 99999999999 % 2**32),
    "tomesd": ("TIP", {"tomesd": "no"}, lambda job: not job.spec.tomesd),
    "use_karras_sigmas": (
        "TIP",
        {"use_karras_sigmas": "no"},
        lambda j: not j.spec.use_karras_sigmas,
    ),
    "algorithm_type": (
        "TIP",
        {"algorithm_type": "dpmsolver+++"},
        lambda job: job.spec.algorithm_type == "dpmsolver+++",
    ),
    "vae": ("TIP", {"vae": "kl-f8"}, lambda job: job.spec.vae == "kl-f8"),
    "lora_model": (
        "TIP",
        {"lora_model": "contrast-fix, yae-miko"},
        lambda job: [lora.id for lora in job.spec.loras] == ["contrast-fix", "yae-miko"],
    ),
    "lora_strength": (
        "TIP",
        {"lora_model": "contrast-fix,yae-miko", "lora_strength": "0.45,0.55"},
        lambda job: [lora.strength for lora in job.spec.loras] == [0.45, 0.55],
    ),
    "embeddings_model": (
        "TIP",
        {"embeddings_model": "badhands"},
        lambda job: job.spec.embeddings == ("badhands",),
    ),
    "multi_lingual": ("TIP", {"multi_lingual": "yes"}, lambda job: job.spec.foreign == "a cat"),
    "panorama": ("T", {"panorama": "yes"}, lambda job: job.spec.panorama),
    "self_attention": ("TIP", {"self_attention": "yes"}, lambda job: job.spec.self_attention),
    "upscale": ("TIP", {"upscale": "3"}, lambda job: job.spec.upscale == 3),
    "highres_fix": ("T", {"highres_fix": "yes"}, lambda job: job.spec.highres_fix),
    "clip_skip": ("TIP", {"clipskip": "2"}, lambda job: job.spec.clip_skip == 2),
    "base64": ("TIP", {"base64": "yes", "init_image": "aGk="}, lambda job: job.output.base64),
    "temp": ("TIP", {"temp": "yes"}, lambda job: job.output.temp),
    "webhook": ("TIP", {"webhook": "https://a.b/c"}, lambda job: job.webhook == "https://a.b/c"),
    "track_id": ("TIP", {"track_id": 7}, lambda job: job.track_id == 7),
    "ip_adapter_id": ("TIP", ADAPTER, lambda job: job.spec.ip_adapter.id == "ip-adapter-plus_sd15"),
    "ip_adapter_scale": (
        "TIP",
        ADAPTER | {"ip_adapter_scale": "0.4"},
        lambda job: job.spec.ip_adapter.scale == 0.4,
    ),
    "ip_adapter_image": (
        "TIP",
        ADAPTER,
        lambda job: job.ip_adapter_image.url == ADAPTER["ip_adapter_image"],
    ),
    "instant_response": (
        "TIP",
        {"instant_response": "yes"},
        lambda job: job.echo["instant_response"],
    ),
}
REFUSED = {
    "key": ({"key": "nobody's"}, "Key"),
    "model_id": ({"model_id": "lora_model_id"}, None),
    "prompt": ({"prompt": ""}, "prompt"),
    "init_image": ({"init_image": None}, "init_image"),
    "mask_image": ({"mask_image": ""}, "mask_image"),
    "width, height": ({"width": 8}, "width"),
    "aspect_ratio": ({"aspect_ratio": "16:9"}, "aspect_ratio"),
    "samples": ({"samples": 5}, "samples"),
    "num_inference_steps": ({"num_inference_steps": "many"}, "num_inference_steps"),
    "steps": ({"steps": "many"}, "steps"),
    "safety_checker": ({"safety_checker": "perhaps"}, "safety_checker"),
    "safety_checker_type": ({"safety_checker_type": "purple"}, "safety_checker_type"),
    "enhance_prompt": ({"enhance_prompt": "perhaps"}, "enhance_prompt"),
    "enhance_style": ({"enhance_style": "no-such"}, "enhance_style"),
    "guidance_scale": ({"guidance_scale": 21}, "guidance_scale"),
    "strength": ({"strength": 1.1}, "strength"),
    "scheduler": ({"scheduler": "Mine"}, "scheduler"),
    "seed": ({"seed": "lucky"}, "seed"),
    "algorithm_type": ({"algorithm_type": "mine"}, "algorithm_type"),
    "vae": ({"vae": "mine"}, "vae"),
    "lora_model": ({"lora_model": "lora_model_id"}, "lora_model"),
    "lora_strength": ({"lora_strength": "11"}, "lora_strength"),
    "embeddings_model": ({"embeddings_model": "embeddings_models_id"}, "embeddings_model"),
    "multi_lingual": ({"multi_lingual": "yes"}, "multi_lingual"),
    "panorama": ({"panorama": "yes"}, "panorama"),  # with a picture
    "highres_fix": ({"highres_fix": "yes"}, "highres_fix"),  # with a picture
    "upscale": ({"upscale": "4"}, "upscale"),
    "clip_skip": ({"clip_skip": 9}, "clip_skip"),
    "webhook": ({"webhook": "ftp://a.b"}, "webhook"),
    "track_id": ({"track_id": "x" * 5000}, "track_id"),
    "ip_adapter_id": ({"ip_adapter_id": "ip-adapter_sd15"}, "ip_adapter_id"),
    "ip_adapter_scale": ({"ip_adapter_scale": 2}, "ip_adapter_scale"),
    "ip_adapter_image": ({"ip_adapter_id": ADAPTER["ip_adapter_id"]}, "ip_adapter_image"),
}
DEFAULTS = {
    "negative_prompt": lambda job: job.spec.negative_prompt == "",
    "width, height": lambda job: (job.spec.width, job.spec.height) == (512, 512),
    "samples": lambda job: job.spec.samples == 1,
    "num_inference_steps": lambda job: job.spec.steps == 31,
    "steps": lambda job: job.spec.steps == 31,
    "safety_checker": lambda job: job.safety is not None,
    "safety_checker_type": lambda job: job.safety is SafetyAction.TEXT,
    "enhance_prompt": lambda job: job.echo["enhance_prompt"] is True,
    "enhance_style": lambda job: job.echo["enhance_style"] is None,
    "guidance_scale": lambda job: job.spec.guidance_scale == 7.5,
    "strength": lambda job: job.spec.strength == 0.7,
    "seed": lambda job: 0 <= job.spec.seed < 2**32,
    "tomesd": lambda job: job.spec.tomesd,
    "use_karras_sigmas": lambda job: job.spec.use_karras_sigmas,
    "algorithm_type": lambda job: job.spec.algorithm_type is None,
    "vae": lambda job: job.spec.vae is None,
    "lora_model": lambda job: job.spec.loras == (),
    "lora_strength": lambda job: job.spec.loras == (),
    "embeddings_model": lambda job: job.spec.embeddings == (),
    "multi_lingual": lambda job: job.spec.foreign == "",
    "panorama": lambda job: not job.spec.panorama,
    "self_attention": lambda job: not job.spec.self_attention,
    "upscale": lambda job: job.spec.upscale == 1,
    "highres_fix": lambda job: not job.spec.highres_fix,
    "clip_skip": lambda job: job.spec.clip_skip == 1,
    "base64": lambda job: not job.output.base64,
    "temp": lambda job: not job.output.temp,
    "webhook": lambda job: job.webhook is None,
    "track_id": lambda job: job.track_id is None,
    "ip_adapter_id": lambda job: job.spec.ip_adapter is None,
    "ip_adapter_image": lambda job: job.ip_adapter_image is None,
    "instant_response": lambda job: job.echo["instant_response"] is False,
}
# Values differ from the defaults of the model, each form has its own, and one is checked for all.
COERCED = {
    '"512", 512, 512.0': ("width", ["512", 512, 512.0], lambda job: job.spec.width, [512] * 3),
    '"7.5", 7.5, 7, "5"': (
        "guidance_scale",
        ["7.5", 7.5, 7, "5"],
        lambda job: job.spec.guidance_scale,
        [7.5, 7.5, 7.0, 5.0],
    ),
    '"yes"/"no", true/false, "true"/"false"': (
        "tomesd",
        ["no", False, "false", "yes", True, "true"],
        lambda job: job.spec.tomesd,
        [False] * 3 + [True] * 3,
    ),
    'null, "", missing, "null", NaN': (
        "guidance_scale",
        [None, "", "null", [], "none"],
        lambda job: job.spec.guidance_scale,
        [3.0] * 5,
    ),
    "seed > 2^32-1": ("seed", [2**32 + 5, "4294967301"], lambda job: job.spec.seed, [5, 5]),
    "steps out of range": ("steps", [80, "1000"], lambda job: job.spec.steps, [50, 50]),
    "size not a multiple of 8": ("width", [519, "515"], lambda job: job.spec.width, [512, 512]),
    "same URL as init and mask": (
        "mask_image",
        [BASE["init_image"]],
        lambda job: (job.init_image.url, job.mask_image.url),
        [(BASE["init_image"], BASE["init_image"])],
    ),
}


async def job_of(api, service, kind, fields):
    reply = await api.reply(PATHS[kind], BASE | fields)
    assert reply["status"] in ("success", "processing"), reply
    return service.jobs[reply["id"]].request


def by_kind(table):
    return [
        pytest.param(kind, row, id=f"{row}-{kind}")
        for row, case in table.items()
        for kind in case[0]
    ]


@pytest.mark.parametrize(("kind", "row"), by_kind(HONOURED))
async def test_field_is_honoured(api, service, kind, row):
    _, fields, check = HONOURED[row]
    service.keys, service.can_translate = {"k": "owner of k"}, True
    job = await job_of(api, service, kind, fields)
    assert check(job)
    assert job.spec.kind is KINDS[kind]


@pytest.mark.parametrize("row", REFUSED)
async def test_field_that_cannot_be_honoured_is_named(api, service, row):
    fields, name = REFUSED[row]
    service.keys = {"k": "owner of k"}
    reply = await api.reply(PATHS["P"], BASE | fields)
    assert reply["status"] == "error"
    assert reply["message"] == "Model id not found" if name is None else name in reply["message"]
    assert not service.jobs


@pytest.mark.parametrize("row", DEFAULTS)
@pytest.mark.parametrize("absent", [None, "", "null"], ids=["null", "empty", "null-text"])
async def test_absent_field_means_the_default(api, service, row, absent):
    fields = dict.fromkeys(row.split(", "), absent)
    assert DEFAULTS[row](await job_of(api, service, "P", fields))


@pytest.mark.parametrize("row", COERCED)
async def test_value_is_read_in_every_form(api, service, row):
    field, values, read, expected = COERCED[row]
    body = {"model_id": "other-defaults"}
    jobs = [await job_of(api, service, "P", body | {field: value}) for value in values]
    assert [read(job) for job in jobs] == expected
    assert read(await job_of(api, service, "P", body)) != expected[0] or row.startswith("null")


async def test_nan_names_its_field(api):
    reply = await api.reply(PATHS["T"], BASE | {"guidance_scale": float("nan")})
    assert "guidance_scale" in reply["message"]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        pytest.param("T", "num_inference_steps", id="text2img"),
        pytest.param("I", "num_inference_steps", id="img2img"),
        pytest.param("P", "steps", id="inpaint"),
    ],
)
async def test_steps_echoed_are_the_steps_that_ran(api, kind, field):
    reply = await api.reply(PATHS[kind], BASE | {field: "30"})
    assert reply["meta"]["steps"] == 30


REWRITTEN = {
    "meta.prompt": ("yes", "prompt", " a cat DSLR photography"),
    "meta.negative_prompt": ("yes", "negative_prompt", " ((out of frame))"),
    'enhance_prompt:"no"': ("no", "prompt", "a cat"),
}


@pytest.mark.parametrize("row", REWRITTEN)
async def test_prompt_rewriting_shows_in_meta(api, row):
    enhance, name, start = REWRITTEN[row]
    body = BASE | {"model_id": "midjourney-v4-painta", "enhance_prompt": enhance}
    meta = (await api.reply(PATHS["T"], body))["meta"]
    assert meta[name].startswith(start)
    assert (meta["negative_prompt"] == "") is (enhance == "no")


@pytest.mark.parametrize(
    ("ids", "strengths", "expected"),
    [
        pytest.param("contrast-fix,yae-miko", "0.5", (0.5, 0.5), id="one-for-all"),
        pytest.param("contrast-fix,yae-miko", None, (1.0, 1.0), id="none"),
    ],
)
async def test_lora_list_is_filled_up(api, service, ids, strengths, expected):
    job = await job_of(api, service, "T", {"lora_model": ids, "lora_strength": strengths})
    names = ids.split(",")
    assert job.spec.loras == tuple(
        LoraUse(id=name, strength=strength) for name, strength in zip(names, expected, strict=True)
    )
