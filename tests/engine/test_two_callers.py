"""Two callers with keys of their own, over HTTP, on one painter: each gets what its words say.

The whole service but Ray: the API, keys, the store of jobs, the driver, and the real painter with
the trained demo checkpoint. What is right is read off the pixels.
"""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from serve_app.api import create_api
from serve_app.config import AppConfig, EngineConfig
from serve_app.jobs.driver import Driver
from serve_app.models import Catalogue, CatalogueView, Enhancement, ModelEntry
from serve_app.models.reload import Reloads
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.service.generation import GenerationService, Stores
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore, MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.storage import MemoryStore
from serve_app.types import Job, JobResult, Kind
from tests.builders import webhook_body

SIDE = 256
COLOURS = {
    "red": (220, 50, 47),
    "green": (60, 160, 70),
    "blue": (70, 130, 230),
    "purple": (120, 60, 190),
    "yellow": (250, 230, 90),
}
# Words, and the colours of the object and of the background that they ask for.
PROMPTS = (
    ("a (green:1.2) star on a red background", "green", "red"),
    ("a red (circle:1.2) on a blue background", "red", "blue"),
    ("a purple square (large) on a yellow background", "purple", "yellow"),
)


class PaintingGraph(FakeGraph):
    """A graph whose pictures are painted, by one painter for all."""

    def __init__(self, painter: WeavePainter, files: MemoryStore) -> None:
        super().__init__()
        self._painter = painter
        self._files = files

    async def run(self, job: Job) -> JobResult:
        made = await self._painter.paint(job.id, job.request.spec, None)
        for key, picture in zip(job.request.output.keys, made.pictures, strict=True):
            await self._files.put(key, picture.data, "image/png")
        return JobResult(
            keys=job.request.output.keys,
            nsfw=made.nsfw,
            generation_time_s=made.generation_time_s,
            ran=made.ran,
        )


@pytest.fixture(scope="module")
def entry() -> ModelEntry:
    return ModelEntry(
        id="demo",
        source=Path(__file__).parents[2] / "checkpoints" / "demo",
        kinds=tuple(Kind),
        native_size_px=SIDE,
        enhancement=Enhancement(styles=False),
    )


@pytest.fixture(scope="module")
def painter(entry: ModelEntry) -> Iterator[WeavePainter]:
    config = EngineConfig(device="cpu", measure_rows=False)
    painter = WeavePainter(entry, config, load_checkpoint(entry, config))
    yield painter
    painter.close()


def nearest(pixels: np.ndarray) -> str:
    colour = np.median(pixels.reshape(-1, 3), axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(colour - COLOURS[name]).sum()))


@pytest.mark.parametrize("together", [False, True], ids=["in turn", "together"])
async def test_each_caller_gets_the_picture_of_its_own_words(
    entry: ModelEntry, painter: WeavePainter, together: bool
) -> None:
    config = AppConfig.model_validate({"auth": {"mode": "keys"}, "jobs": {"poll_s": 0.05}})
    jobs, keys, files, models = (
        MemoryJobStore(),
        MemoryKeyStore(),
        MemoryStore(),
        MemoryModelStore(),
    )
    graph = PaintingGraph(painter, files)
    driver = Driver(jobs, graph, config.jobs, webhook_body)
    service = GenerationService(
        Stores(jobs, files, keys, jobs.outbox),
        CatalogueView(Catalogue([entry]), models, Path()),
        driver,
        graph,
        Reloads(models, graph.notify_replicas, config.reload),
        config,
    )
    secrets = [(await keys.create(name))[1] for name in ("one", "other")]
    http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_api(service, config.http, config.jobs)),
        base_url="http://testserver",
        trust_env=False,
    )

    async def ask(number: int) -> tuple[str, str]:
        answer = await http.post(
            "/api/v4/dreambooth",
            json={
                "key": secrets[number % 2],
                "model_id": "demo",
                "prompt": PROMPTS[number % 3][0],
                "width": SIDE,
                "height": SIDE,
                "steps": 15,
                "guidance_scale": 3,
                "scheduler": "DDIMScheduler",
                "safety_checker": "no",
                "seed": 7,
            },
        )
        reply = answer.json()
        assert reply["status"] == "success", reply
        made = await http.get(reply["output"][0])
        pixels = np.asarray(Image.open(io.BytesIO(made.content)))
        middle, corner = slice(SIDE * 7 // 16, SIDE * 9 // 16), slice(0, SIDE // 8)
        return nearest(pixels[middle, middle]), nearest(pixels[corner, corner])

    driver.start()
    try:
        if together:
            seen = await asyncio.gather(*(ask(number) for number in range(6)))
        else:
            seen = [await ask(number) for number in range(6)]
    finally:
        await driver.close()
        await http.aclose()
    assert seen == [PROMPTS[number % 3][1:] for number in range(6)]
