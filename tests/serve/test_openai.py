"""OpenAI's own clients against the real service: their calls, their pictures, their errors."""

import base64
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

pytestmark = pytest.mark.ray
SIDE = 64
HOLE = (slice(16, 40), slice(8, 48))  # rows and columns
OWN = {"steps": 8, "num_inference_steps": 8, "safety_checker": "no", "seed": 5}
NODE = Path(__file__).parent / "openai_client.mjs"


@pytest.fixture
def client(service):
    with openai.OpenAI(
        api_key="any",
        base_url=f"{service.base_url}/v1",
        max_retries=0,
        http_client=httpx2.Client(trust_env=False, timeout=150),
    ) as client:
        yield client


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def noise():
    return np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def hole(colour, alpha):
    """Return a mask that is opaque but for the hole."""
    mask = np.full((SIDE, SIDE, 4), (*colour, 255), np.uint8)
    mask[HOLE] = (0, 0, 0, alpha)
    return png(mask)


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_generation_gives_the_same_picture_by_link_and_inline(client):
    reply = client.images.generate(model="tiny", prompt="a cat", n=2, size="64x128", extra_body=OWN)
    assert (len(reply.data), reply.size, reply.seed) == (2, "64x128", 5)
    for image in reply.data:
        data = base64.b64decode(image.b64_json)
        assert httpx2.get(image.url, trust_env=False).content == data
        assert opened(image.b64_json).size == (64, 128)


@pytest.mark.parametrize(("form", "media"), [("webp", "image/webp"), ("jpeg", "image/jpeg")])
def test_generation_in_another_format(client, form, media):
    reply = client.images.generate(
        model="tiny",
        prompt="a cat",
        output_format=form,
        output_compression=80,
        size="64x64",
        extra_body=OWN,
    )
    assert opened(reply.data[0].b64_json).format == form.upper()
    assert httpx2.get(reply.data[0].url, trust_env=False).headers["content-type"] == media


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(hole((255, 255, 255), 0), id="white with a hole"),
        pytest.param(hole((0, 0, 0), 0), id="black with a hole"),
    ],
)
def test_edit_changes_no_pixel_outside_of_the_hole(client, mask):
    init = noise()
    reply = client.images.edit(
        model="tiny",
        prompt="a cat",
        image=("a.png", png(init)),
        mask=("b.png", mask),
        extra_body=OWN,
    )
    made = np.asarray(opened(reply.data[0].b64_json).convert("RGB"))
    changed = (made != init).any(2)
    outside = np.ones_like(changed)
    outside[HOLE] = False
    assert changed[outside].sum() == 0
    assert changed[HOLE].mean() > 0.9


def test_edit_with_a_mask_of_another_size_is_refused(client):
    mask = png(np.zeros((SIDE, 2 * SIDE, 4), np.uint8))
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(model="tiny", prompt="a", image=png(noise()), mask=mask, extra_body=OWN)
    assert caught.value.body["param"] == "mask"
    assert caught.value.body["message"] == "The mask must have the size of the image."


def test_stream_shows_previews_and_then_the_picture(client):
    stream = client.images.generate(
        model="tiny",
        prompt="a cat",
        size="512x512",
        stream=True,
        partial_images=3,
        extra_body=OWN | {"num_inference_steps": 50},
    )
    *partial, last = list(stream)
    assert last.type == "image_generation.completed"
    assert opened(last.b64_json).size == (512, 512)
    assert partial, "50 steps take longer than two looks"
    for index, event in enumerate(partial):
        assert (event.type, event.partial_image_index) == (
            "image_generation.partial_image",
            index,
        )
        assert opened(event.b64_json).format == "JPEG"


def test_errors_are_those_that_the_client_knows(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(model="dall-e-3", prompt="a")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="tiny", prompt="a", size="7x7")
    assert (caught.value.param, caught.value.code) == ("size", "invalid_value")
    assert "tiny" in {model.id for model in client.models.list()}


def test_client_for_javascript_generates_edits_and_streams(service, tmp_path):
    """The package `openai` of npm, where it is installed: `npm install openai` in some folder."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    shutil.copy(NODE, tmp_path)
    modules = os.environ.get("NODE_MODULES", "")
    if not (Path(modules) / "openai").is_dir():
        pytest.skip("NODE_MODULES names no folder with the package openai of npm")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "init.png").write_bytes(png(noise()))
    (tmp_path / "mask.png").write_bytes(hole((255, 255, 255), 0))
    done = subprocess.run(
        ["node", NODE.name, f"{service.base_url}/v1"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    made = np.asarray(opened(told["edited"]).convert("RGB"))
    outside = np.ones((SIDE, SIDE), bool)
    outside[HOLE] = False
    assert (made != noise())[outside].sum() == 0
    assert opened(told["generated"]).size == (64, 64)
    assert told["streamed"][-1] == "image_generation.completed"
    assert told["error"] == [400, "size", "invalid_value"]
