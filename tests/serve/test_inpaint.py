"""The inpaint call over real HTTP on a real Ray cluster."""

import asyncio
import base64
import io
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import MODELS, TAIL

pytestmark = pytest.mark.ray

EXAMPLE = Path(__file__).parents[2] / "examples" / "inpaint"
INPAINT = "/api/v4/dreambooth/inpaint"


def data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def init_image(height=64, width=64):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mask_image(height=64, width=64):
    """White on the right half."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 2 :] = 255
    return Image.fromarray(pixels)


def body(**changes):
    values = {
        "key": "",
        "model_id": "tiny",
        "prompt": "a cat",
        "init_image": data_uri(init_image()),
        "mask_image": data_uri(mask_image()),
        "width": "64",
        "height": "64",
        "steps": "4",
        "safety_checker": "no",
        "seed": 7,
    }
    return {**values, **changes}


async def painted(http, answer) -> Image.Image:
    response = await http.get(answer["output"][0])
    assert response.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(response.content))


async def test_documented_body_paints_only_inside_the_mask(http):
    request = json.loads((EXAMPLE / "request.json").read_text())
    init, mask = (Image.open(EXAMPLE / f"{name}.png") for name in ("init", "mask"))
    request |= {
        "model_id": "tiny",
        "init_image": data_uri(init),
        "mask_image": data_uri(mask),
    }
    answer = (await http.post(INPAINT, json=request)).json()
    assert answer["status"] == "success", answer
    picture = await painted(http, answer)
    assert picture.size == (512, 512)
    keep = np.asarray(mask.convert("L")) < 128
    before, after = np.asarray(init.convert("RGB")), np.asarray(picture.convert("RGB"))
    assert np.array_equal(before[keep], after[keep])
    assert (before[~keep] != after[~keep]).any(axis=-1).mean() > 0.5
    assert answer["meta"]["steps"] == 30
    assert answer["meta"]["scheduler"] == "UniPCMultistepScheduler"
    assert 0 <= answer["meta"]["seed"] < 2**32


async def test_size_that_was_not_asked_for_follows_the_picture(http):
    init, mask = init_image(128, 192), mask_image(128, 192)
    asked = body(init_image=data_uri(init), mask_image=data_uri(mask), height=None, width="96")
    answer = (await http.post(INPAINT, json=asked)).json()
    picture = await painted(http, answer)
    assert picture.size == (answer["meta"]["W"], answer["meta"]["H"]) == (96, 64)
    before = np.asarray(init.resize((96, 64), Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(picture)[:, :48], before[:, :48])


async def test_models_answer_by_their_id(http):
    pictures = {}
    for model_id in ("tiny", "twins"):
        answer = (await http.post(INPAINT, json=body(model_id=model_id))).json()
        assert answer["meta"]["model_id"] == model_id
        pictures[model_id] = np.asarray(await painted(http, answer))
    assert not np.array_equal(pictures["tiny"], pictures["twins"])


async def test_same_seed_gives_the_same_picture_and_another_seed_another(http):
    answers = [(await http.post(INPAINT, json=body(seed=seed))).json() for seed in (1, 1, 2)]
    first, again, other = [np.asarray(await painted(http, answer)) for answer in answers]
    assert np.abs(first.astype(int) - again).max() <= 1
    assert not np.array_equal(first, other)


async def test_unknown_model_gets_the_documented_error(http):
    response = await http.post(INPAINT, json=body(model_id="nobody"))
    assert response.status_code == 200
    answer = response.json()
    assert (answer["status"], answer["message"]) == ("error", "Model id not found")


async def test_concurrent_requests_come_out_with_their_own_values(http):
    async def ask(index):
        size = (64, 128)[index % 2]
        asked = body(
            prompt=f"thing {index}",
            seed=1000 + index,
            width=str(size),
            model_id=("tiny", "twins")[index % 3 == 0],
            scheduler=("DDIMScheduler", "EulerAncestralDiscreteScheduler")[index % 2],
        )
        answer = (await http.post(INPAINT, json=asked)).json()
        assert answer["status"] == "success", answer
        meta = answer["meta"]
        assert f"thing {index}" in meta["prompt"]
        assert (meta["seed"], meta["W"], meta["H"]) == (1000 + index, size, 64)
        assert meta["model_id"] == asked["model_id"]
        assert (await painted(http, answer)).size == (size, 64)
        return answer["id"]

    ids = await asyncio.gather(*(ask(index) for index in range(20)))
    assert len(set(ids)) == 20


async def test_samples_come_out_as_so_many_different_pictures(http):
    answer = (await http.post(INPAINT, json=body(samples="3"))).json()
    assert len(answer["output"]) == 3
    pictures = {(await http.get(url)).content for url in answer["output"]}
    assert len(pictures) == 3


async def test_slow_job_is_answered_as_processing_and_fetched(http):
    asked = body(instant_response="yes", steps="50", width="256", height="256")
    answer = (await http.post(INPAINT, json=asked)).json()
    assert (answer["status"], answer["output"]) == ("processing", [])
    assert answer["fetch_result"].endswith(f"/api/v3/dreambooth/fetch/{answer['id']}")
    assert (await http.get(answer["future_links"][0])).status_code == 404
    fetch = {"key": "", "request_id": str(answer["id"])}
    async with asyncio.timeout(60):
        while (state := (await http.post("/api/v4/dreambooth/fetch", json=fetch)).json())[
            "status"
        ] == "processing":
            assert state["output"] == ""
            await asyncio.sleep(0.1)
    assert state["status"] == "success"
    assert state["output"] == answer["future_links"]
    assert (await painted(http, state)).size == (256, 256)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"init_image": "http://127.0.0.1:1/x.png"}, "init_image"),
        ({"init_image": "http://169.254.169.254/latest/meta-data"}, "init_image"),
        (
            {"mask_image": "data:image/png;base64," + base64.b64encode(b"GIF89a").decode()},
            "mask_image",
        ),
        (
            {"init_image": "data:image/png;base64," + base64.b64encode(b"<html>").decode()},
            "init_image",
        ),
        ({"mask_image": "not base64 at all!"}, "mask_image"),
    ],
    ids=["refused-loopback", "refused-metadata", "gif", "html", "no-base64"],
)
async def test_bad_picture_is_answered_with_its_field(http, changes, field):
    answer = (await http.post(INPAINT, json=body(**changes))).json()
    assert answer["status"] == "error", answer
    assert field in json.dumps(answer["message"])
    assert "Traceback" not in json.dumps(answer)


async def test_safety_checker_replaces_what_it_flags(http, service):
    """The checker of the fixture flags everything."""
    answer = (
        await http.post(INPAINT, json=body(safety_checker="yes", safety_checker_type="black"))
    ).json()
    assert (answer["status"], answer["nsfw_content_detected"]) == ("success", True)
    assert np.asarray(await painted(http, answer)).max() == 0
    unchecked = (await http.post(INPAINT, json=body(safety_checker="no"))).json()
    assert unchecked["nsfw_content_detected"] is False
    assert np.asarray(await painted(http, unchecked)).max() > 0


async def test_picture_by_url_goes_through_the_graph(http):
    """`localhost` is on the list of allowed hosts; its address is not."""
    first = (await http.post(INPAINT, json=body())).json()["output"][0]
    allowed = first.replace("127.0.0.1", "localhost")
    answer = (await http.post(INPAINT, json=body(init_image=allowed))).json()
    assert answer["status"] == "success", answer
    refused = (await http.post(INPAINT, json=body(init_image=first))).json()
    assert refused["status"] == "error"


async def test_job_row_tells_what_happened_to_a_bad_picture(http, service):
    bad = "data:image/png;base64," + base64.b64encode(b"<html>").decode()
    await http.post(INPAINT, json=body(init_image=bad))
    with sqlite3.connect(service.data_dir / "dreamserve.db") as database:
        row = database.execute(
            "SELECT state, failure FROM jobs ORDER BY number DESC LIMIT 1"
        ).fetchone()
    assert row[0] == "failed"
    assert json.loads(row[1])["code"] == "invalid_image"
    assert "init_image" in json.loads(row[1])["fields"]


async def test_health_answers(http):
    assert (await http.get("/health/live")).status_code == 200
    ready = await http.get("/health/ready")
    assert ready.status_code == 200
    assert set(ready.json()["models"]) == {*MODELS, *TAIL}
    assert ready.json()["parts"] == {"database": True, "storage": True, "safety": True}
