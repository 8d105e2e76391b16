"""What every `Painter` promises."""

import asyncio
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serve_app import errors
from serve_app.config import CatalogueConfig, EngineConfig, ReloadConfig
from serve_app.models import ModelEntry
from serve_app.pipelines import FakePainter
from serve_app.pipelines.compose import encode
from serve_app.pipelines.protocol import Painter
from serve_app.replica.resident import Resident
from serve_app.replica.status import ReplicaStatus
from serve_app.replica.weights import CatalogueWeights
from serve_app.testing.checkpoints import write_random_inpaint
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.painter import load_painter
from serve_app.types import Fit, GenerationSpec, Kind, Pictures, PreparedImages, Sight

SIZE = 64
BOX = (slice(16, 40), slice(8, 48))  # rows and columns that the mask repaints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("inpaint")
    write_random_inpaint(folder)
    return folder


def resident() -> Painter:
    """A model whose weights could be exchanged, started in an event loop of its own."""

    async def start() -> Painter:
        entry = ModelEntry(id="random", source=Path("nowhere"), kinds=tuple(Kind))
        engine = EngineConfig(painter="fake", fake_step_s=0.001)
        weights = CatalogueWeights(entry, lambda _id, _type: None, CatalogueConfig(), engine)
        config = ReloadConfig()
        replica_status = ReplicaStatus("random", "replica", MemoryModelStore(), config)
        resident = Resident("random", replica_status, weights, config)
        await resident.start()
        return resident

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(start())).result()


@pytest.fixture(scope="module", params=["fake", "weave", "resident"])
def make_painter(request: pytest.FixtureRequest) -> Callable[[], Painter]:
    if request.param == "fake":
        return lambda: FakePainter(step_s=0.001)
    if request.param == "resident":
        return resident
    folder = request.getfixturevalue("checkpoint")
    entry = ModelEntry(id="random", source=folder, kinds=tuple(Kind), native_size_px=512)
    return lambda: load_painter(entry, EngineConfig(device="cpu"))


@pytest.fixture(scope="module")
def painter(make_painter: Callable[[], Painter]) -> Iterator[Painter]:
    painter = make_painter()
    yield painter
    painter.close()


def spec(**changes: object) -> GenerationSpec:
    values: dict[str, object] = {
        "model_id": "random",
        "kind": Kind.INPAINT,
        "prompt": "a red square",
        "height": SIZE,
        "width": SIZE,
        "steps": 3,
        "scheduler": "UniPCMultistepScheduler",
        "seed": 7,
    }
    return GenerationSpec.model_validate(values | changes)


def images() -> PreparedImages:
    random = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[BOX] = 255
    init = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return PreparedImages(encode(init), encode(mask))


def pixels(pictures: Pictures, index: int = 0) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[index].data)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind))
async def test_paint_any_kind_gives_png_of_asked_size(painter: Painter, kind: Kind) -> None:
    result = await painter.paint(1, spec(kind=kind, width=72), resized(72))
    picture = result.pictures[0]
    assert picture.data.startswith(b"\x89PNG")
    assert (picture.height, picture.width) == (SIZE, 72)
    assert pixels(result).shape == (SIZE, 72, 3)
    assert result.nsfw == (False,)
    assert result.generation_time_s > 0


def resized(width: int) -> PreparedImages:
    made = images()
    opened = [
        Image.open(io.BytesIO(picture.data)).resize((width, SIZE), Image.Resampling.NEAREST)
        for picture in (made.init, made.mask)
        if picture is not None
    ]
    return PreparedImages(*(encode(np.asarray(image)) for image in opened))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.IMG2IMG, Kind.INPAINT])
async def test_paint_size_left_to_the_picture_is_that_of_the_picture(
    painter: Painter, kind: Kind
) -> None:
    fit = Fit(area_px=512**2, multiple_px=8, min_px=64, max_px=1024, max_area_px=1024**2)
    left = spec(kind=kind, height=512, width=512, fit=fit, samples=2)
    result = await painter.paint(1, left, resized(72))
    asked = await painter.paint(2, spec(kind=kind, width=72, samples=2), resized(72))
    assert [(one.height, one.width) for one in result.pictures] == [(SIZE, 72)] * 2
    assert result.pictures == asked.pictures
    assert result.ran == asked.ran | {"W": 72, "H": SIZE}


async def test_paint_twice_gives_equal_pictures(painter: Painter) -> None:
    first = await painter.paint(1, spec(), images())
    second = await painter.paint(2, spec(), images())
    assert first.pictures == second.pictures


@pytest.mark.slow
async def test_paint_samples_use_consecutive_seeds(painter: Painter) -> None:
    many = await painter.paint(1, spec(samples=3), images())
    third = await painter.paint(2, spec(seed=9), images())
    assert len(many.pictures) == 3
    assert np.abs(pixels(many, 2).astype(int) - pixels(third)).max() <= 1


@pytest.mark.slow
async def test_paint_other_prompt_or_seed_gives_another_picture(painter: Painter) -> None:
    base = pixels(await painter.paint(1, spec(), images()))
    for change in ({"prompt": "a blue circle"}, {"seed": 8}):
        assert (pixels(await painter.paint(2, spec(**change), images())) != base).any()


async def test_paint_inpaint_keeps_black_of_mask_exactly(painter: Painter) -> None:
    inputs = images()
    result = pixels(await painter.paint(1, spec(), inputs))
    init = np.asarray(Image.open(io.BytesIO(inputs.init.data)))
    is_kept = np.ones((SIZE, SIZE), bool)
    is_kept[BOX] = False
    assert (result[is_kept] == init[is_kept]).all()
    assert (result[BOX] != init[BOX]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("factor", [2, 3])
async def test_paint_upscale_enlarges_the_same_picture(painter: Painter, factor: int) -> None:
    small = Image.fromarray(pixels(await painter.paint(1, spec(width=72), resized(72))))
    result = await painter.paint(2, spec(width=72, upscale=factor), resized(72))
    picture = result.pictures[0]
    assert (picture.height, picture.width) == (SIZE * factor, 72 * factor)
    expected = small.resize((72 * factor, SIZE * factor), Image.Resampling.LANCZOS)
    assert (pixels(result) == np.asarray(expected)).all()


@pytest.mark.slow
async def test_paint_many_at_once_gives_each_its_own(painter: Painter) -> None:
    specs = [spec(seed=seed, steps=2 + seed % 3) for seed in range(6)]
    together = await asyncio.gather(*(painter.paint(one.seed, one, images()) for one in specs))
    for one, result in zip(specs, together, strict=True):
        alone = await painter.paint(1, one, images())
        assert np.abs(pixels(alone).astype(int) - pixels(result)).max() <= 1


@pytest.mark.parametrize(
    ("kind", "inputs", "field"),
    [
        pytest.param(Kind.INPAINT, None, "init_image", id="inpaint-nothing"),
        pytest.param(
            Kind.INPAINT, PreparedImages(images().init), "mask_image", id="inpaint-no-mask"
        ),
        pytest.param(Kind.IMG2IMG, None, "init_image", id="img2img-nothing"),
    ],
)
async def test_paint_without_needed_picture_names_field(
    painter: Painter, kind: Kind, inputs: PreparedImages | None, field: str
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await painter.paint(1, spec(kind=kind), inputs)
    assert caught.value.field == field


async def test_paint_picture_of_other_size_is_refused(painter: Painter) -> None:
    with pytest.raises(errors.InvalidRequest):
        await painter.paint(1, spec(height=128), images())


@pytest.mark.slow
async def test_progress_grows_and_ends_with_the_job(painter: Painter) -> None:
    assert painter.progress() == {}
    task = asyncio.create_task(painter.paint(5, spec(steps=40), images()))
    seen: list[float] = []
    while not task.done():
        seen += painter.progress().values()
        await asyncio.sleep(0.001)
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= 1
    assert painter.progress() == {}


@pytest.mark.slow
async def test_look_shows_the_steps_of_watched_jobs_and_newer_previews_only(
    painter: Painter,
) -> None:
    assert painter.look({8: -1}) == {}
    task = asyncio.create_task(painter.paint(8, spec(steps=100), images()))
    sights: list[Sight] = []
    while not task.done():
        assert painter.look({7: -1}) == {}
        newest = max((sight.preview_step for sight in sights), default=-1)
        sights += painter.look({8: newest}).values()
        await asyncio.sleep(0.001)
    assert [sight.step for sight in sights] == sorted(sight.step for sight in sights)
    assert 0 < sights[-1].step <= sights[-1].steps <= 100
    shown = [sight for sight in sights if sight.preview]
    steps = [sight.preview_step for sight in shown]
    assert steps == sorted(set(steps)), "each is told once"
    assert steps, "somebody watched"
    for sight in shown:
        with Image.open(io.BytesIO(sight.preview), formats=("JPEG",)) as picture:
            assert max(picture.size) <= 256
    assert painter.look({8: -1}) == {}


async def test_look_without_previews_shows_none(painter: Painter) -> None:
    task = asyncio.create_task(painter.paint(9, spec(steps=20), images()))
    while not task.done():
        assert all(not sight.preview for sight in painter.look({9: None}).values())
        await asyncio.sleep(0.001)


async def at_work(painter: Painter, job_id: int) -> None:
    while not painter.progress().get(job_id):
        await asyncio.sleep(0.001)


async def test_paint_cancelled_stops_the_work(painter: Painter) -> None:
    task = asyncio.create_task(painter.paint(6, spec(steps=900), images()))
    await at_work(painter, 6)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert painter.progress() == {}
    await asyncio.wait_for(painter.paint(7, spec(), images()), 10)


@pytest.mark.slow
async def test_close_fails_jobs_at_work_and_health(make_painter: Callable[[], Painter]) -> None:
    painter = make_painter()
    painter.check_health()
    task = asyncio.create_task(painter.paint(1, spec(steps=900), images()))
    await at_work(painter, 1)
    await asyncio.to_thread(painter.close)
    with pytest.raises(errors.ReplicaLost):
        await task
    with pytest.raises(errors.ReplicaLost):
        await painter.paint(2, spec(), images())
    with pytest.raises(RuntimeError):
        painter.check_health()
    painter.close()


async def test_costs_of_jobs_add_up_to_what_was_run(painter: Painter) -> None:
    """Of jobs that share forwards too: rows exactly, and the time that the engine was at work."""
    before = painter.snapshot()
    text = spec(kind=Kind.TEXT2IMG, steps=3)
    jobs = [text, text.model_copy(update={"samples": 2, "seed": 9})]
    made = await asyncio.gather(
        *(painter.paint(number, job, None) for number, job in enumerate(jobs))
    )
    after = painter.snapshot()
    costs = [pictures.cost for pictures in made]
    assert sum(cost.row_steps for cost in costs) == after.rows - before.rows
    assert costs[1].row_steps == 2 * costs[0].row_steps > 0
    worked_s = sum(after.stage_s.values()) - sum(before.stage_s.values())
    assert sum(cost.device_s for cost in costs) == pytest.approx(worked_s, rel=0.5)
    assert [cost.stored_bytes for cost in costs] == [0, 0]
