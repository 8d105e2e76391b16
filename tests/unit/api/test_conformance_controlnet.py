"""The ControlNet calls (API pages "ControlNet Main" and "Multi"), a test per field and reply key.

`docs/conformance.md` lists the rows. What a ControlNet does to a picture is compared with diffusers
in `tests/engine/test_controlnets.py`.
"""

from pathlib import Path

import pytest

from serve_app.models import AddOn
from serve_app.types import ControlNetUse, ControlType, Kind

PATHS = ("/api/v5/controlnet", "/api/v6/images/controlnet")
INIT, MASK, CONTROL = (f"https://a.example/{name}.png" for name in ("i", "m", "c"))
BASE = {
    "key": "k",
    "model_id": "your_model_id",
    "prompt": "a cat",
    "controlnet_model": "canny",
    "auto_hint": "yes",
    "init_image": INIT,
}
TWO = {"controlnet_model": "canny, control-plain", "controlnet_type": "canny,tile"}


def nets(job):
    return [(use.id, use.scale, use.hint) for use in job.spec.controlnets]


# Row of the table: fields as the vendor sends them, and what becomes of them.
HONOURED = {
    "controlnet_model": (
        {"controlnet_model": "control-canny"},
        lambda job: nets(job) == [("control-canny", 1.0, "canny")],
    ),
    "controlnet_model, by type": (
        {"controlnet_model": "canny"},
        lambda job: nets(job) == [("control-canny", 1.0, "canny")],
    ),
    "controlnet_model, several": (TWO, lambda job: len(job.spec.controlnets) == 2),
    "controlnet_model, as many as may be": (
        {"controlnet_model": ",".join(["canny"] * 5)},
        lambda job: nets(job) == [("control-canny", 1.0, "canny")] * 5,
    ),
    "controlnet_model, inpaint": (
        {"controlnet_model": "inpaint", "mask_image": MASK},
        lambda job: nets(job) == [("control-inpaint", 1.0, "inpaint")],
    ),
    "controlnet_type": (
        TWO,
        lambda job: [use.hint for use in job.spec.controlnets] == ["canny", "tile"],
    ),
    "controlnet_type, alone": (
        {"controlnet_model": None, "controlnet_type": "canny"},
        lambda job: nets(job) == [("control-canny", 1.0, "canny")],
    ),
    "auto_hint": ({"auto_hint": "no"}, lambda job: nets(job) == [("control-canny", 1.0, None)]),
    "guess_mode": (
        {"guess_mode": "yes", "prompt": ""},
        lambda job: job.spec.guess_mode and not job.spec.prompt.strip(),
    ),
    "init_image": (
        {"strength": "0.55"},
        lambda job: (job.spec.kind, job.init_image.url) == (Kind.IMG2IMG, INIT),
    ),
    "control_image": (
        {"control_image": CONTROL},
        lambda job: (
            (job.spec.kind, job.control_image.url, job.init_image.url)
            == (Kind.IMG2IMG, CONTROL, INIT)
        ),
    ),
    "control_image, alone": (
        {"control_image": CONTROL, "init_image": None},
        lambda job: (job.spec.kind, job.init_image) == (Kind.TEXT2IMG, None),
    ),
    "mask_image": (
        {"mask_image": MASK},
        lambda job: (job.spec.kind, job.mask_image.url) == (Kind.INPAINT, MASK),
    ),
    "controlnet_conditioning_scale": (
        TWO | {"controlnet_conditioning_scale": "0.4"},
        lambda job: [use.scale for use in job.spec.controlnets] == [0.4, 0.4],
    ),
    "controlnet_conditioning_scale, several": (
        TWO | {"controlnet_conditioning_scale": "0.4,5"},
        lambda job: [use.scale for use in job.spec.controlnets] == [0.4, 5.0],
    ),
    "controlnet_conditioning_scale, fewer": (
        {
            "controlnet_model": "canny,canny,canny",
            "controlnet_conditioning_scale": [0.1, 0],
        },
        lambda job: [use.scale for use in job.spec.controlnets] == [0.1, 0.0, 1.0],
    ),
    "strength": ({"strength": 0.55}, lambda job: job.spec.strength == 0.55),
    "control_guidance_start, control_guidance_end": (
        {"control_guidance_start": "0.2", "control_guidance_end": 0.8},
        lambda job: (job.spec.control_start, job.spec.control_end) == (0.2, 0.8),
    ),
    "embeddings_model": (
        {"embeddings": "badhands"},  # as the client `modelslab` calls it
        lambda job: job.spec.embeddings == ("badhands",),
    ),
    "lora_model, vae, scheduler, samples, webhook": (
        {
            "lora_model": "contrast-fix", "vae": "kl-f8", "scheduler": "DDIMScheduler",
            "samples": "2", "webhook": "https://a.b/c", "ip_adapter_id": "ip-adapter-plus_sd15",
            "ip_adapter_image": "https://a.b/c.png", "highres_fix": "yes", "upscale": "2",
        },
        lambda job: (
            (job.spec.loras[0].id, job.spec.vae, job.spec.samples, job.webhook)
            == ("contrast-fix", "kl-f8", 2, "https://a.b/c")
        ),
    ),
}  # fmt: skip
REFUSED = {
    "controlnet_model": ({"controlnet_model": None}, "controlnet_model", "field is required"),
    "controlnet_model, unknown": (
        {"controlnet_model": "nope"},
        "controlnet_model",
        "No ControlNet of the id or type nope is in the catalogue.",
    ),
    "controlnet_model, of another type": (
        {"controlnet_model": "kl-f8"},
        "controlnet_model",
        "No ControlNet of the id or type kl-f8",
    ),
    "controlnet_model, of another model": (
        {"controlnet_model": "control-other"},
        "controlnet_model",
        "The ControlNet control-other is not for the model your_model_id.",
    ),
    "controlnet_model, a type that no net has": (
        {"controlnet_model": "tile"},
        "controlnet_model",
        "of the id or type tile",
    ),
    "controlnet_model, too many": (
        {"controlnet_model": ",".join(["canny"] * 6)},
        "controlnet_model",
        "more than 5 ids",
    ),
    "controlnet_type": ({"controlnet_type": "mine"}, "controlnet_type", "must be one of"),
    "controlnet_type, not the net's": (
        {"controlnet_type": "tile"},
        "controlnet_type",
        "The ControlNet control-canny is for canny.",
    ),
    "controlnet_type, more than nets": (
        {"controlnet_type": "canny,canny"},
        "controlnet_type",
        "has more values than controlnet_model has ids",
    ),
    "controlnet_type, needed for a hint": (
        {"controlnet_model": "control-plain"},
        "controlnet_type",
        "field is required",
    ),
    "auto_hint": ({"auto_hint": "perhaps"}, "auto_hint", "must be yes or no"),
    "auto_hint, without its model": (
        {"controlnet_model": "depth"},
        "auto_hint",
        "Hints of the type depth are made by a model that is not installed here (hints.depth)",
    ),
    "guess_mode": ({"guess_mode": "perhaps"}, "guess_mode", "must be yes or no"),
    "control_image": ({"init_image": None}, "control_image", "field is required"),
    "control_image, no picture": ({"control_image": 7}, "control_image", "must be a URL"),
    "init_image": (
        {"mask_image": MASK, "init_image": "", "control_image": CONTROL},
        "init_image",
        "field is required beside a mask_image",
    ),
    "mask_image": (
        {"controlnet_model": "inpaint"},
        "mask_image",
        "field is required for a ControlNet of the type inpaint",
    ),
    "controlnet_conditioning_scale": (
        {"controlnet_conditioning_scale": 5.1},
        "controlnet_conditioning_scale",
        "must be between 0 and 5",
    ),
    "controlnet_conditioning_scale, below": (
        {"controlnet_conditioning_scale": "0.5,-0.1"},
        "controlnet_conditioning_scale",
        "must be between 0 and 5",
    ),
    "controlnet_conditioning_scale, more than nets": (
        {"controlnet_conditioning_scale": "0.5,0.6"},
        "controlnet_conditioning_scale",
        "has more values than controlnet_model has ids",
    ),
    "strength": ({"strength": 2}, "strength", "must be between 0 and 1"),
    "control_guidance_end": (
        {"control_guidance_start": 0.5, "control_guidance_end": 0.5},
        "control_guidance_end",
        "The control guidance end must be greater than control_guidance_start",
    ),
    "panorama": ({"panorama": "yes"}, "panorama", "cannot be combined"),
}
DEFAULTS = {
    "auto_hint": lambda job: job.spec.hints == (ControlType.CANNY,),
    "guess_mode": lambda job: not job.spec.guess_mode,
    "control_image": lambda job: job.control_image.url == INIT,
    "controlnet_type": lambda job: job.spec.hints == (ControlType.CANNY,),
    "controlnet_conditioning_scale": lambda job: job.spec.controlnets[0].scale == 1.0,
    "mask_image": lambda job: job.spec.kind is Kind.TEXT2IMG,
    "strength": lambda job: (job.spec.kind, job.spec.strength) == (Kind.TEXT2IMG, 1.0),
    "width, height": lambda job: job.spec.fit is not None,
    "control_guidance_start, control_guidance_end": lambda job: (
        (job.spec.control_start, job.spec.control_end) == (0.0, 1.0)
    ),
}
META = {
    "controlnet_model": "control-canny,control-plain",
    "controlnet_type": "canny,tile",
    "auto_hint": "yes",
    "guess_mode": "no",
    "controlnet_conditioning_scale": "0.4,1.5",
    "strength": 0.55,
    "init_image": INIT,
    "control_image": CONTROL,
    "mask_image": MASK,
}


async def job_of(api, service, fields, path=PATHS[0]):
    reply = await api.reply(path, BASE | fields)
    assert reply["status"] == "success", reply
    return service.jobs[reply["id"]].request


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"controlnet_model": [f"x{i}" for i in range(1500)]}, id="unknown names"),
        pytest.param({"controlnet_model": ["depth"] * 1500}, id="one type again and again"),
        pytest.param(
            {"controlnet_model": None, "controlnet_type": ["canny"] * 1500}, id="types alone"
        ),
        pytest.param({"controlnet_model": "x1,x2,x3,x4,x5"}, id="as many as may be"),
    ],
)
async def test_names_of_nets_are_not_looked_for_among_all_add_ons(
    api, service, monkeypatch, fields
):
    nets = [
        AddOn(id=f"net-{i}", type="controlnet", source=Path("x"), control=("canny",))
        for i in range(100)
    ]
    service.catalogue = service.catalogue.extended(nets)
    looks = []
    fits = AddOn.fits
    monkeypatch.setattr(AddOn, "fits", lambda *args: looks.append(1) or fits(*args))
    reply = await api.reply(PATHS[0], BASE | fields)
    assert list(reply["message"]) == ["controlnet_model"]
    assert not looks


@pytest.mark.parametrize("path", PATHS, ids=["v5", "v6"])
@pytest.mark.parametrize("row", HONOURED)
async def test_field_of_controlnet_is_honoured(api, service, row, path):
    fields, check = HONOURED[row]
    assert check(await job_of(api, service, fields, path))


@pytest.mark.parametrize("row", REFUSED)
async def test_field_of_controlnet_that_cannot_be_honoured_is_named(api, service, row):
    fields, name, text = REFUSED[row]
    answer = await api.post(PATHS[0], BASE | fields)
    assert answer.status_code == 200
    reply = answer.json()
    assert reply["status"] == "error"
    assert list(reply["message"]) == [name]
    assert text in reply["message"][name][0]
    assert not service.jobs
    assert not service.inputs


async def test_problem_that_is_a_sentence_of_its_own_has_no_field_before_it(api):
    fields, name, text = REFUSED["auto_hint, without its model"]
    reply = await api.reply(PATHS[0], BASE | fields)
    assert reply["message"][name][0].startswith(text)
    later = await api.post(PATHS[1], BASE | fields)
    assert later.status_code == 400
    assert isinstance(later.json()["message"], str)


@pytest.mark.parametrize("row", DEFAULTS)
@pytest.mark.parametrize("absent", [None, "", "none"], ids=["null", "empty", "none-text"])
async def test_absent_field_of_controlnet_means_the_default(api, service, row, absent):
    if row == "guess_mode" and absent == "none":
        absent = "null"  # of yes and no the word might mean either
    fields = dict.fromkeys(row.split(", "), absent)
    assert DEFAULTS[row](await job_of(api, service, fields))


async def test_control_image_is_shown_as_it_is_unless_a_hint_is_asked_for(api, service):
    fields = {"control_image": CONTROL, "auto_hint": None}
    assert (await job_of(api, service, fields)).spec.hints == (None,)
    assert (await job_of(api, service, fields | {"auto_hint": "yes"})).spec.hints == ("canny",)


async def test_hint_of_a_model_is_made_where_the_operator_names_one(api, service):
    service.hint_models = frozenset({ControlType.DEPTH})
    job = await job_of(api, service, {"controlnet_model": "depth"})
    assert nets(job) == [("control-depth", 1.0, "depth")]
    assert len(job.output.hint_keys) == 1


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        ("depth", "a model that is not installed here (hints.depth)"),
        ("normal", "a model that is not installed here (hints.normal)"),
        ("segmentation", "a model that is not installed here (hints.segmentation)"),
        ("openpose", "a model that is not installed here (hints.pose)"),
        ("pose", "a model that is not installed here (hints.pose)"),
        ("hed", "a model that is not installed here (hints.softedge)"),
        ("softedge", "a model that is not installed here (hints.softedge)"),
        ("lineart", "a model that is not installed here (hints.lineart)"),
        ("mlsd", "a model that is not installed here (hints.mlsd)"),
        ("face_detector", "Hints of the type face_detector are not made here"),
    ],
)
async def test_hint_that_nobody_can_make_says_what_is_missing(api, control, reason):
    fields = {"controlnet_model": "control-plain", "controlnet_type": control}
    reply = await api.reply(PATHS[0], BASE | fields)
    assert reason in str(reply["message"]["auto_hint"])


async def test_hints_of_every_model_are_made(api, service):
    service.hint_models = frozenset(one for one in ControlType if one.setting)
    for control in service.hint_models:
        fields = {"controlnet_model": "control-plain", "controlnet_type": control}
        assert (await job_of(api, service, fields)).spec.hints == (control,)


async def test_type_names_the_net_that_fits_the_model(api, service):
    job = await job_of(api, service, {"model_id": "inpaint-only", "mask_image": MASK})
    assert nets(job) == [("control-canny", 1.0, "canny")]
    fields = {"model_id": "inpaint-only", "mask_image": MASK, "controlnet_model": "tile"}
    job = await job_of(api, service, fields)
    assert nets(job) == [("control-other", 1.0, "tile")]


async def test_inline_control_image_is_kept_and_not_repeated(api, service):
    reply = await api.reply(PATHS[0], BASE | {"init_image": None, "control_image": "aGk="})
    assert service.jobs[reply["id"]].request.control_image.stored_key
    assert reply["meta"]["control_image"] == ""


@pytest.mark.parametrize("row", META)
async def test_meta_of_controlnet_has_the_documented_form(api, row):
    fields = TWO | {
        "controlnet_conditioning_scale": "0.4,1.5", "strength": "0.55",
        "control_image": CONTROL, "mask_image": MASK,
    }  # fmt: skip
    assert (await api.reply(PATHS[0], BASE | fields))["meta"][row] == META[row]


async def test_meta_links_to_the_hints_that_are_drawn(api, service):
    fields = {"controlnet_model": "canny,canny,control-plain"}
    fields |= {"controlnet_type": "canny,canny,tile"}
    reply = await api.reply(PATHS[0], BASE | fields)
    plan = service.jobs[reply["id"]].request.output
    assert len(plan.hint_keys) == 1
    assert reply["meta"]["hint_images"] == {"canny": f"http://testserver/files/{plan.hint_keys[0]}"}
    reply = await api.reply(PATHS[0], BASE | {"auto_hint": "no"})
    assert "hint_images" not in reply["meta"]
    assert service.jobs[reply["id"]].request.output.hint_keys == ()


async def test_meta_of_other_calls_says_nothing_of_controlnets(api, text_body):
    meta = (await api.reply("/api/v4/dreambooth", text_body | {"controlnet_model": "canny"}))[
        "meta"
    ]
    assert not {"controlnet_model", "guess_mode", "control_image"} & set(meta)


@pytest.mark.parametrize(
    ("path", "fetch"),
    [(PATHS[0], "/api/v3/fetch/"), (PATHS[1], "/api/v6/images/fetch/")],
    ids=["v5", "v6"],
)
async def test_processing_of_controlnet_has_its_documented_form(api, service, path, fetch):
    service.outcome = None
    reply = await api.reply(path, BASE)
    assert (reply["status"], reply["output"]) == ("processing", "")
    assert reply["fetch_result"] == f"http://testserver{fetch}{reply['id']}"
    assert reply["meta"]["controlnet_model"] == "control-canny"


def test_uses_are_values_of_a_job():
    use = ControlNetUse(id="a", scale=0.5, hint=ControlType.CANNY)
    assert ControlNetUse.model_validate_json(use.model_dump_json()) == use
