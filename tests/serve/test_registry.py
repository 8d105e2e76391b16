"""Entries that are added while the service runs, over real HTTP on a real Ray cluster."""

import asyncio
import base64
import io
import shutil

import pytest
from PIL import Image

from tests.serve.conftest import ADMIN_KEY
from tests.serve.test_loss import final
from tests.weight_files import write_lora

pytestmark = [pytest.mark.ray, pytest.mark.timeout(560)]  # with the start of the service

TEXT2IMG = "/api/v4/dreambooth"
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}


def body(**changes):
    return {
        "key": "",
        "model_id": "twins",
        "prompt": "a later cat",
        "width": "64",
        "height": "64",
        "steps": "4",
        "safety_checker": "no",
        "seed": 7,
        **changes,
    }


async def post(http, **changes):
    return (await http.post(TEXT2IMG, json=body(**changes))).json()


async def picture(http, **changes):
    answer = await post(http, **changes)
    if answer["status"] == "processing":  # on a busy machine a load may outlast the hold
        answer = await final(http, answer["id"])
    assert answer["status"] == "success", answer
    return (await http.get(answer["output"][0])).content


@pytest.fixture(scope="module")
def sources(service, tmp_path_factory):
    """Where the add-ons are, by type."""
    checkpoints = service.data_dir.parent / "checkpoints"
    lora = tmp_path_factory.mktemp("lora")
    write_lora(checkpoints / "tail-1", lora)
    return {
        "embedding": "checkpoints/style.safetensors",
        "lora": str(lora / "pytorch_lora_weights.safetensors"),
    }


@pytest.mark.parametrize(
    ("add_on_type", "field"), [("embedding", "embeddings_model"), ("lora", "lora_model")]
)
async def test_add_on_serves_without_a_redeploy_until_it_is_removed(
    http, sources, add_on_type, field
):
    """With a model of its own deployment and one of the Pool."""
    later = f"later-{add_on_type}"
    assert f"of the id {later} is in" in str((await post(http, **{field: later}))["message"])
    entry = {"id": later, "type": add_on_type, "source": sources[add_on_type]}
    added = await http.post("/admin/models", json=entry, headers=OPERATOR)
    assert added.status_code == 201
    for model_id in ("twins", "tail-1"):
        plain = await picture(http, model_id=model_id)
        assert await picture(http, model_id=model_id, **{field: later}) != plain
    removed = await http.delete(f"/admin/models/{later}", headers=OPERATOR)
    assert removed.status_code == 204
    listed = (await http.get("/admin/models", headers=OPERATOR)).json()["models"]
    assert later not in {row["id"] for row in listed}


async def test_picture_for_an_ip_adapter_goes_through_the_graph(http, tmp_path):
    from serve_app.testing.checkpoints import RandomUNet, random_unet
    from serve_app.testing.ip_adapters import write_random_ip_adapter

    write_random_ip_adapter(tmp_path, random_unet(RandomUNet()))
    entry = {"id": "shown", "type": "ip_adapter", "source": str(tmp_path)}
    await http.post("/admin/models", json=entry, headers=OPERATOR)
    named = {"ip_adapter_id": "shown", "ip_adapter_scale": 1}
    red, blue = [base64_of(Image.new("RGB", (48, 32), name)) for name in ("red", "blue")]
    first = await picture(http, **named, ip_adapter_image=red)
    assert first == await picture(http, **named, ip_adapter_image=red)
    assert first not in (
        await picture(http, **named, ip_adapter_image=blue),
        await picture(http),
    )
    refused = (await http.post(TEXT2IMG, json=body(**named, ip_adapter_image="aGk="))).json()
    assert refused["reason"] == "invalid_image"
    await http.delete("/admin/models/shown", headers=OPERATOR)


def base64_of(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


async def test_bad_add_on_fails_its_job_and_no_other(http):
    entry = {"id": "bad", "type": "lora", "source": "checkpoints/none.safetensors"}
    await http.post("/admin/models", json=entry, headers=OPERATOR)
    answer = (await http.post(TEXT2IMG, json=body(lora_model="bad"))).json()
    assert answer["reason"] == "weights_refused"
    assert await picture(http)
    await http.delete("/admin/models/bad", headers=OPERATOR)


@pytest.mark.parametrize(
    ("add_on_type", "field", "noun"),
    [
        ("lora", "lora_model", "LoRA"),
        ("vae", "vae", "VAE"),
        ("embedding", "embeddings_model", "embedding"),
    ],
)
async def test_add_on_that_does_not_fit_is_an_error_of_its_field(
    http, service, sources, tmp_path, add_on_type, field, noun
):
    """With a model of its own deployment and one of the Pool; the file is one that fits nothing."""
    source = tmp_path / "add-on.safetensors"
    shutil.copy(
        service.data_dir.parent / sources["lora" if noun != "LoRA" else "embedding"], source
    )
    entry = {"id": f"misfit-{add_on_type}", "type": add_on_type, "source": str(source)}
    refused = await http.post("/admin/models", json=entry, headers=OPERATOR)
    assert refused.status_code == 400
    assert "found a" in refused.json()["message"]
    replaced = source.rename(tmp_path / "other.safetensors")
    assert (await http.post("/admin/models", json=entry, headers=OPERATOR)).status_code == 201
    replaced.rename(source)  # after it was looked at
    for model_id in ("twins", "tail-1"):
        answer = await post(http, model_id=model_id, **{field: entry["id"]})
        assert answer["reason"] == "add_on_misfit"
        (text,) = answer["message"][field]
        assert text.startswith(f"The {noun} {entry['id']} does not fit this model: found ")
        assert ", expected " in text
    await http.delete(f"/admin/models/{entry['id']}", headers=OPERATOR)


@pytest.mark.parametrize("placement", ["pool", "own"])
async def test_model_serves_without_a_redeploy_until_it_is_removed(http, placement):
    """By the Pool; one that shall have an application of its own too, until that is deployed."""
    late = f"late-{placement}"
    entry = {"id": late, "source": "checkpoints/tail-1", "kinds": ["text2img"]}
    entry |= {"native_size_px": 64, "placement": placement}
    assert "not found" in (await post(http, model_id=late))["message"]
    added = await http.post("/admin/models", json=entry, headers=OPERATOR)
    assert added.status_code == 201
    same = {"enhance_prompt": "no"}  # the words are the entry's
    made = await picture(http, model_id=late, **same)
    assert made == await picture(http, model_id="tail-1", **same)

    call = {"key": "", "model_id": late}
    reloaded = (await http.post(f"{TEXT2IMG}/model_reload", json=call)).json()
    assert (reloaded["status"], reloaded["generation"]) == ("success", 1), reloaded
    rows = (await http.post(f"{TEXT2IMG}/model_list", json={"key": ""})).json()
    assert {row["model_id"]: row["status"] for row in rows}[late] == "model_ready"

    removed = await http.delete(f"/admin/models/{late}", headers=OPERATOR)
    assert removed.status_code == 204
    async with asyncio.timeout(120):  # each process looks at the catalogue every few seconds
        while "not found" not in str(await post(http, model_id=late)):
            await asyncio.sleep(0.2)
