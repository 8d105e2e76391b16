"""The hosted API's own PyPI client, `modelslab` 0.2, pointed here by its base URL alone."""

import base64
import io
import json
from pathlib import Path

import modelslab
import numpy as np
import pytest
import requests
from PIL import Image

from serve_app.images import hint
from serve_app.types import ControlType

pytestmark = pytest.mark.ray
EXAMPLE = Path(__file__).parents[2] / "examples" / "inpaint"
# What its callers hand over, in the documentation's own types: text and explicit nulls.
COMMON = {
    "key": "",
    "model_id": "tiny",
    "prompt": "a cat sitting on a bench",
    "negative_prompt": None,
    "width": "64",
    "height": "64",
    "samples": "1",
    "safety_checker": "no",
    "enhance_prompt": "yes",
    "guidance_scale": 7.5,
    "scheduler": "UniPCMultistepScheduler",
    "seed": 7,
    "lora_model": None,
    "tomesd": "yes",
    "use_karras_sigmas": "yes",
    "vae": None,
    "lora_strength": None,
    "embeddings_model": None,
    "webhook": None,
    "track_id": None,
}
TEXT2IMG = COMMON | {
    "num_inference_steps": "4",
    "multi_lingual": "no",
    "panorama": "no",
    "self_attention": "no",
    "upscale": "no",
    "clip_skip": "1",
}


def picture(name):
    data = base64.b64encode((EXAMPLE / name).read_bytes()).decode()
    return f"data:image/png;base64,{data}"


@pytest.fixture(params=["v4/dreambooth", "v6/images"])
def client(request, service, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = modelslab.ModelsLab().community_models
    client.base_url = f"{service.base_url}/api/{request.param}"
    return client


def painted(text):
    reply = json.loads(text)
    assert reply["status"] == "success", reply
    image = Image.open(io.BytesIO(requests.get(reply["output"][0], timeout=30).content))
    return reply, np.asarray(image).astype(int)


def is_v6(client):
    return "/v6/" in client.base_url


@pytest.fixture
def small(client):
    """Sizes that the family takes: V6 is strict."""
    side = "256" if is_v6(client) else "64"
    return {"width": side, "height": side}


def test_text2img_gives_a_picture(client, small):
    reply, image = painted(client.txt2img(**TEXT2IMG | small))
    assert image.shape[:2] == (int(small["height"]), int(small["width"]))
    assert reply["meta"]["seed"] == 7


def test_embedding_of_the_catalogue_changes_the_picture(client, small):
    _, plain = painted(client.txt2img(**TEXT2IMG | small))
    reply, styled = painted(client.txt2img(**TEXT2IMG | small | {"embeddings_model": "style"}))
    assert reply["meta"]["embeddings"] == "style"
    assert np.abs(plain - styled).max() > 0


def test_img2img_gives_a_picture(client, small):
    fields = {"init_image": picture("init.png"), "strength": 0.7, "num_inference_steps": "4"}
    reply, _ = painted(client.img2img(**COMMON | small | fields))
    assert reply["meta"]["strength"] == 0.7


def test_inpaint_keeps_what_the_mask_keeps(client):
    fields = {
        "init_image": picture("init.png"),
        "mask_image": picture("mask.png"),
        "width": "512",
        "height": "512",
        "strength": 0.7,
        "steps": "2",
    }
    _, image = painted(client.inpaint(**COMMON | fields))
    init = np.asarray(Image.open(EXAMPLE / "init.png").convert("RGB"))
    keep = np.asarray(Image.open(EXAMPLE / "mask.png").convert("L")) < 128
    assert np.array_equal(image[keep], init[keep])


CONTROL = {
    "key": "",
    "model_id": "tiny",
    "controlnet_type": "canny",
    "controlnet_model": "canny",
    "prompt": "a cat sitting on a bench",
    "num_inference_steps": "4",
    "safety_checker": "no",
    "seed": 7,
    "width": "256",
    "height": "256",
}


@pytest.fixture(params=["v5/controlnet", "v6/images/controlnet"])
def controlnet(request, service, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = modelslab.ModelsLab().controlnet
    client.base_url, client.route = f"{service.base_url}/api", request.param
    return client


def test_controlnet_steers_the_picture(controlnet):
    init = {"init_image": picture("init.png")}
    reply, steered = painted(controlnet.controlnet_main(**CONTROL | init))
    assert reply["meta"]["controlnet_model"] == "control-canny"
    assert reply["meta"]["auto_hint"] == "yes"
    shown = requests.get(reply["meta"]["hint_images"]["canny"], timeout=30).content
    init_picture = Image.open(EXAMPLE / "init.png").convert("RGB")
    edges = hint.make(ControlType.CANNY, init_picture.resize((256, 256), Image.Resampling.LANCZOS))
    drawn = np.asarray(Image.open(io.BytesIO(shown)).convert("RGB"))
    assert (drawn == np.asarray(edges)).mean() > 0.99
    _, weakly = painted(
        controlnet.controlnet_main(**CONTROL | init | {"controlnet_conditioning_scale": 0})
    )
    assert steered.shape == weakly.shape == (256, 256, 3)
    assert np.abs(steered - weakly).mean() > 1


def test_two_controlnets_inpaint_and_keep_what_the_mask_keeps(controlnet):
    fields = {
        "init_image": picture("init.png"),
        "mask_image": picture("mask.png"),
        "controlnet_model": "canny,tile",
        "controlnet_type": "canny,tile",
        "controlnet_conditioning_scale": "0.6,0.4",
        "width": "512",
        "height": "512",
    }
    reply, image = painted(controlnet.controlnet_multi(**CONTROL | fields))
    assert reply["meta"]["controlnet_model"] == "control-canny,control-tile"
    init = np.asarray(Image.open(EXAMPLE / "init.png").convert("RGB"))
    keep = np.asarray(Image.open(EXAMPLE / "mask.png").convert("L")) < 128
    assert np.array_equal(image[keep], init[keep])
    assert not np.array_equal(image[~keep], init[~keep])


@pytest.mark.parametrize("as_type", [int, str])
def test_fetch_gives_the_pictures_of_a_job(client, small, as_type):
    reply, _ = painted(client.txt2img(**TEXT2IMG | small))
    fetched = json.loads(client.fetch_queued("", as_type(reply["id"])))
    assert (fetched["status"], fetched["output"]) == ("success", reply["output"])


def test_reload_and_model_list_know_the_model(client, service):
    assert json.loads(client.reload_model("", "tiny"))["status"] == "success"
    misc = modelslab.ModelsLab().miscs
    misc.base_url = f"{service.base_url}/api/v3"
    rows = json.loads(misc.dreambooth_model_list(""))
    listed = {row["model_id"]: row["model_category"] for row in rows}
    assert (listed["tiny"], listed["style"]) == ("stable_diffusion", "embeddings")
    assert listed["control-canny"] == "controlnet"


def test_helper_calls_check_and_remove(client, service, small):
    reply, _ = painted(client.txt2img(**TEXT2IMG | small))
    url = f"{service.base_url}/api/v3"
    flags = requests.post(
        f"{url}/nsfw_image_check", json={"init_image": picture("init.png")}, timeout=60
    ).json()["has_nsfw_concept"]
    assert [type(flag) for flag in flags] == [bool]
    gone = requests.post(f"{url}/delete_image", json={"request_id": reply["id"]}, timeout=30)
    assert gone.json()["status"] == "success"
    assert requests.get(reply["output"][0], timeout=30).status_code == 404
