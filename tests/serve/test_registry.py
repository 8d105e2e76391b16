"""Entries that are added while the service runs, over real HTTP on a real Ray cluster."""

import base64
import io

import pytest
from PIL import Image

from tests.serve.conftest import ADMIN_KEY

pytestmark = pytest.mark.ray

TEXT2IMG = "/api/v4/dreambooth"
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}


def body(**changes):
    return {
        "key": "",
        "model_id": "tiny-2",
        "prompt": "a later cat",
        "width": "64",
        "height": "64",
        "steps": "4",
        "safety_checker": "no",
        "seed": 7,
        **changes,
    }


async def picture(http, **changes):
    answer = (await http.post(TEXT2IMG, json=body(**changes))).json()
    assert answer["status"] == "success", answer
    return (await http.get(answer["output"][0])).content


async def test_add_on_serves_without_a_redeploy_until_it_is_removed(http):
    named = {"embeddings_model": "later"}
    refused = (await http.post(TEXT2IMG, json=body(**named))).json()
    assert "No embedding of the id later" in str(refused["message"])
    entry = {"id": "later", "type": "embedding", "source": "checkpoints/style.safetensors"}
    added = await http.post("/admin/models", json=entry, headers=OPERATOR)
    assert added.status_code == 201
    assert await picture(http, **named) != await picture(http)
    removed = await http.delete("/admin/models/later", headers=OPERATOR)
    assert removed.status_code == 204
    listed = (await http.get("/admin/models", headers=OPERATOR)).json()["models"]
    assert "later" not in {row["id"] for row in listed}


async def test_picture_for_an_ip_adapter_goes_through_the_graph(http, tmp_path):
    from serve_app.pipelines.randomadapter import write_random_ip_adapter
    from serve_app.pipelines.randomweights import RandomUNet, random_unet

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
