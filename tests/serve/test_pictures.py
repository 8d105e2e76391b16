"""Pictures of clients on a real Ray cluster: who reads them, and what ends that."""

import asyncio
import base64
import io

import psutil
import pytest
from PIL import Image

from tests.picture_files import LARGE, file, scans
from tests.processes import descendants
from tests.serve.test_inpaint import INPAINT, body

pytestmark = pytest.mark.ray

SLOW = "data:image/jpeg;base64," + base64.b64encode(scans(8000, *LARGE, progressive=True)).decode()


def workers() -> list[psutil.Process]:
    """Processes that read pictures, of every replica."""
    return [process for process, title in descendants() if "serve_app.images.worker" in title]


async def at_work() -> psutil.Process:
    """The worker that a slow picture keeps busy."""
    before = {process: sum(process.cpu_times()) for process in workers()}
    while True:
        for process, spent in before.items():
            if sum(process.cpu_times()) > spent + 0.5:
                return process
        await asyncio.sleep(0.05)


async def gone(*processes) -> bool:
    return not (await asyncio.to_thread(psutil.wait_procs, processes, 60))[1]


async def test_published_picture_is_read_and_stored_by_the_graph(http):
    picture = file(Image.new("RGB", (60, 40), "red"), "JPEG")
    asked = {"key": "", "image": base64.b64encode(picture).decode(), "crop": "true"}
    reply = (await http.post("/api/v3/base64_crop", json=asked)).json()
    response = await http.get(reply["link"])
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (40, 40)


async def test_published_text_is_the_api_error_of_its_field(http):
    asked = {"key": "", "base64_string": base64.b64encode(b"<svg/>").decode()}
    reply = (await http.post("/api/v6/base64_to_url", json=asked)).json()
    assert reply["reason"] == "invalid_image"
    assert "base64_string" in reply["message"]


async def test_cancelled_job_ends_the_reading_of_its_picture(http):
    asked = body(init_image=SLOW, instant_response="yes")
    job_id = (await http.post(INPAINT, json=asked)).json()["id"]
    async with asyncio.timeout(60):
        worker = await at_work()
    others = [process for process in workers() if process != worker]
    await http.post(f"/api/v4/dreambooth/cancel/{job_id}", json={"key": ""})
    assert await gone(worker)
    assert {*others} <= {*workers()}
    assert (await http.post(INPAINT, json=body())).json()["status"] == "success"


@pytest.mark.slow
async def test_workers_end_with_their_replica(http):
    lost = workers()
    lost[0].parent().kill()
    assert await gone(*lost)
    assert (await http.post(INPAINT, json=body())).json()["status"] == "success"
