"""Weights are exchanged under load on a real cluster: two replicas, and colours as marks.

The VAE of each generation paints one plain colour, so that a picture shows who made it.
"""

import asyncio
import io
import json
import os
import sqlite3

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.processes import descendants
from tests.weight_files import HARM, rewrite

pytestmark = [pytest.mark.ray, pytest.mark.timeout(560)]

MODEL = "twins"
VAE = "vae/diffusion_pytorch_model.safetensors"
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module", autouse=True)
def _good_weights_at_the_end(service):
    """Other tests use the model too."""
    yield
    body = {"key": "", "model_id": MODEL}
    with httpx2.Client(base_url=service.base_url, timeout=150, trust_env=False) as http:
        answer = http.post("/api/v4/dreambooth/model_reload", json=body).json()
    assert answer["status"] == "success", answer


@pytest.fixture
def weights(service):
    """The folder of the model; what a test did to it is undone, and reloaded by the next."""
    folder = service.data_dir.parent / "checkpoints" / MODEL
    before = {file: file.read_bytes() for file in folder.rglob("*.safetensors")}
    yield folder
    for file, content in before.items():
        replace(file, content)


def replace(file, content):
    """As a careful operator does: never in place."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, file)


def dye(folder, colour):
    """Have the decoder paint nothing but a colour."""

    def change(tensors):
        tensors["decoder.conv_out.weight"].zero_()
        for channel, level in enumerate(COLOURS[colour]):
            tensors["decoder.conv_out.bias"][channel] = level / 127.5 - 1

    rewrite(folder, VAE, change)


async def reload(http, model_id=MODEL):
    body = {"key": "", "model_id": model_id}
    return (await http.post("/api/v4/dreambooth/model_reload", json=body)).json()


async def paint(http, seed=0, **changes):
    """Colours of the samples of a job, which generation says it made them."""
    body = {
        "key": "",
        "model_id": MODEL,
        "prompt": "a cat",
        "width": "64",
        "height": "64",
        "num_inference_steps": "8",
        "samples": "2",
        "seed": seed,
        "safety_checker": "no",
    }
    answer = (await http.post("/api/v4/dreambooth/text2img", json=body | changes)).json()
    assert answer["status"] == "success", answer
    pictures = [await http.get(url) for url in answer["output"]]
    return [colour_of(picture.content) for picture in pictures], answer["meta"].get("generation", 0)


def colour_of(png):
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    names = [name for name, rgb in COLOURS.items() if (pixels == rgb).all()]
    return names[0] if names else "other"


async def test_no_request_is_lost_in_a_reload_and_each_has_one_generation(http, weights):
    dye(weights, "red")
    first = await reload(http)
    assert first["status"] == "success", first
    assert len(first["replicas"]) == 2
    made = []

    async def keep_painting(seed):
        while not done.is_set():
            made.append(await paint(http, seed))

    done = asyncio.Event()
    painters = [asyncio.create_task(keep_painting(seed)) for seed in range(4)]
    while not made:
        await asyncio.sleep(0.1)
    dye(weights, "green")
    second = await reload(http)
    assert second["status"] == "success", second
    after = [await paint(http, seed) for seed in range(6)]
    done.set()
    await asyncio.gather(*painters)
    expected = {first["generation"]: "red", second["generation"]: "green"}
    assert {generation for _, generation in made} == set(expected)
    assert all(colours == [expected[generation]] * 2 for colours, generation in made + after)
    assert {generation for _, generation in after} == {second["generation"]}


@pytest.mark.parametrize("harm", ["truncated", "nan"])
async def test_bad_weights_leave_the_old_ones_serving(http, weights, harm):
    dye(weights, "red")
    good = await reload(http)
    assert good["status"] == "success", good
    HARM[harm](weights)
    bad = await reload(http)
    assert (bad["status"], bad["reason"]) == ("error", "reload_failed")
    assert [(row["status"], row["serving"]) for row in bad["replicas"]] == [
        ("failed", good["generation"])
    ] * 2
    assert await paint(http) == (["red", "red"], good["generation"])
    assert (await http.get("/health/ready")).status_code == 200


async def test_two_reloads_at_once_end_at_the_newest(http, weights):
    dye(weights, "blue")
    answers = await asyncio.gather(reload(http), reload(http))
    assert [answer["status"] for answer in answers] == ["success"] * 2
    newest = max(answer["generation"] for answer in answers)
    assert await paint(http) == (["blue", "blue"], newest)


async def test_reload_brings_a_model_of_the_pool_into_memory(http):
    answer = await reload(http, "tail-5")
    assert answer["status"] == "success", answer
    assert [row["serving"] for row in answer["replicas"]] == [answer["generation"]]


@pytest.mark.slow
async def test_replacement_of_a_dead_replica_has_the_reloaded_weights(http, service, weights):
    dye(weights, "green")
    answer = await reload(http)
    assert answer["status"] == "success", answer
    known = {row["replica"] for row in answer["replicas"]}
    victim = next(replicas_of(MODEL))
    victim.kill()
    async with asyncio.timeout(120):
        while not (new := served_by(service).keys() - known):
            assert (await paint(http))[0] == ["green", "green"]
            await asyncio.sleep(0.2)
    assert served_by(service)[next(iter(new))] == answer["generation"]


def replicas_of(model_id):
    for process, title in descendants():
        if f"ServeReplica:dreamserve:Generator:{model_id}" in title:
            yield process


def served_by(service):
    """Generation that is served, by replica that says it is ready."""
    with sqlite3.connect(f"file:{service.data_dir}/dreamserve.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT report FROM model_reports WHERE model_id = ?", [MODEL])
        reports = [json.loads(row[0]) for row in rows]
    return {one["replica_id"]: one["serving"] for one in reports if one["phase"] == "ready"}
