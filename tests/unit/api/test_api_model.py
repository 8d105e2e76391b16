"""The calls about models."""

import pytest

from serve_app.models.protocol import ReplicaPhase


@pytest.mark.parametrize("version", ["v3", "v4"])
async def test_model_list_is_a_bare_array_of_the_documented_rows(api, version):
    api.service.ready = {"your_model_id": True}
    rows = await api.reply(f"/api/{version}/dreambooth/model_list", {"key": ""})
    assert rows[0] == {
        "model_id": "your_model_id",
        "status": "model_ready",
        "created_at": None,
        "instance_prompt": None,
        "model_name": "your_model_id",
        "description": "",
        "screenshots": "",
        "model_category": "stable_diffusion",
        "kinds": ["text2img", "img2img", "inpaint"],
        "native_size_px": 512,
        "defaults": {
            "steps": 31,
            "guidance_scale": 7.5,
            "strength": 0.7,
            "scheduler": "UniPCMultistepScheduler",
        },
        "models": None,
        "control": [],
    }
    assert [row["status"] for row in rows[1:4]] == ["model_loading"] * 3


async def test_model_list_shows_what_requests_may_add(api):
    api.service.ready = {"your_model_id": True, "inpaint-only": False}
    rows = await api.reply("/api/v4/dreambooth/model_list", {"key": ""})
    assert [
        (row["model_id"], row["model_category"], row["status"])
        for row in rows
        if "diffusion" not in row["model_category"]
    ] == [
        ("contrast-fix", "lora", "model_ready"),
        ("yae-miko", "lora", "model_ready"),
        ("only-inpaint", "lora", "model_loading"),
        ("kl-f8", "vae", "model_ready"),
        ("badhands", "embeddings", "model_ready"),
        ("ip-adapter-plus_sd15", "ip_adapter", "model_ready"),
        ("control-canny", "controlnet", "model_ready"),
        ("control-depth", "controlnet", "model_ready"),
        ("control-inpaint", "controlnet", "model_ready"),
        ("esrgan", "upscaler", "model_ready"),
        ("for-sharp", "upscaler", "model_loading"),
        ("control-plain", "controlnet", "model_ready"),
        ("control-other", "controlnet", "model_loading"),
    ]
    named = {row["model_id"]: row for row in rows}
    assert (named["yae-miko"]["model_name"], named["yae-miko"]["description"]) == ("Yae", "pink")
    assert named["badhands"]["instance_prompt"] == "bad-hands"
    assert (named["yae-miko"]["models"], named["only-inpaint"]["models"]) == ([], ["inpaint-only"])
    assert named["control-canny"]["control"] == ["canny"]


RELOAD_PATHS = ["/api/v4/dreambooth/model_reload", "/api/v6/images/model_reload"]
READY, LOADING, FAILED = ReplicaPhase.READY, ReplicaPhase.LOADING, ReplicaPhase.FAILED


@pytest.mark.parametrize("path", RELOAD_PATHS)
@pytest.mark.parametrize(
    ("phase", "status", "more"),
    [
        (READY, "success", {}),
        (LOADING, "processing", {"eta": 81}),
        (FAILED, "error", {"reason": "reload_failed"}),
    ],
)
async def test_model_reload_tells_how_it_went(api, path, phase, status, more):
    api.service.reloaded = (phase, {"a": READY, "b": phase})
    answer = await api.post(path, {"key": "", "model_id": "your_model_id"})
    is_error_of_v6 = status == "error" and "v6" in path
    assert answer.status_code == (500 if is_error_of_v6 else 200)
    reply = answer.json()
    text = reply.pop("message")
    assert reply.pop("messege") == text
    assert reply.pop("replicas") == [
        {"replica": "a", "status": "ready", "generation": 1, "serving": 0},
        {"replica": "b", "status": phase, "generation": 1, "serving": 0},
    ]
    assert reply == {"status": status, "model_id": "your_model_id", "generation": 1, **more}


async def test_model_reload_does_not_say_why(api):
    api.service.reloaded = (FAILED, {"a": FAILED})
    answer = await api.post(RELOAD_PATHS[0], {"key": "", "model_id": "your_model_id"})
    assert "secret" not in answer.text


@pytest.mark.parametrize("model_id", [None, "nope", "../x"])
async def test_model_reload_of_an_unknown_model_is_the_documented_error(api, model_id):
    body = {"key": "", "model_id": model_id}
    reply = await api.reply("/api/v4/dreambooth/model_reload", body)
    assert (reply["status"], reply["message"]) == ("error", "Model id not found")
    assert (await api.post("/api/v6/images/model_reload", body)).status_code == 404
    assert api.service.reloads == []


async def test_schedulers_list_is_the_documented_one(api, load_golden):
    reply = await api.reply("/api/v1/enterprise/schedulers_list", {"key": ""})
    assert reply == load_golden("schedulers_list")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v4/dreambooth/text2video", 200),
    ],
)
async def test_category_that_is_not_served_says_so(api, path, status):
    answer = await api.post(path, {"key": "", "prompt": "a cat"})
    assert answer.status_code == status
    assert answer.json()["status"] == "error"
    assert "is not served here" in answer.json()["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v4/dreambooth/model_list",
        "/api/v4/dreambooth/model_reload",
        "/api/v1/enterprise/schedulers_list",
        "/api/v4/dreambooth/text2video",
    ],
)
async def test_calls_about_models_ask_for_the_key(api, path):
    api.service.keys = {"good": "owner"}
    reply = await api.reply(path, {"key": "bad", "model_id": "your_model_id"})
    assert reply["message"] == "Invalid Api Key"
