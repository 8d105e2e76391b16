"""What only the real painter has: one-file checkpoints for all kinds, crops, warnings, failures."""

import asyncio
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Request
from serve_app.fairness import Stake
from serve_app.models import ModelEntry
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import encode
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.types import GenerationSpec, Kind, Pictures, PreparedImages

CPU = EngineConfig(device="cpu", measure_rows=False)


@pytest.fixture(scope="module")
def make_painter(folder: Callable[[str], Path]) -> Iterator[Callable[..., WeavePainter]]:
    made: dict[tuple[str, int], WeavePainter] = {}

    def make(name: str, native_size_px: int = 64) -> WeavePainter:
        key = (name, native_size_px)
        if key not in made:
            entry = ModelEntry(
                id="random", source=folder(name), kinds=tuple(Kind), native_size_px=native_size_px
            )
            made[key] = WeavePainter(entry, CPU, load_checkpoint(entry, CPU))
        return made[key]

    yield make
    for painter in made.values():
        painter.close()


def images(side: int, white: tuple[int, int, int, int]) -> PreparedImages:
    init = np.random.default_rng(5).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = Image.new("L", (side, side), 0)
    mask.paste(255, white)
    return PreparedImages(encode(init), encode(np.asarray(mask)))


def pixels(pictures: Pictures, index: int = 0) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[index].data))).astype(int)


@pytest.mark.parametrize("kind", list(Kind))
async def test_paint_inpaint_only_checkpoint_does_every_kind(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    kind: Kind,
) -> None:
    painter = make_painter("inpaint")
    spec = make_spec(kind=kind, strength=0.5, samples=2)
    result = await painter.paint(1, spec, images(64, (8, 8, 40, 40)))
    assert [picture.height for picture in result.pictures] == [64, 64]
    assert (pixels(result, 0) != pixels(result, 1)).any()


@pytest.mark.slow
async def test_paint_large_picture_runs_the_crop_and_says_so(
    make_painter: Callable[..., WeavePainter], make_spec: Callable[..., GenerationSpec]
) -> None:
    painter = make_painter("plain", 128)
    inputs = images(512, (200, 200, 260, 260))
    spec = make_spec(kind=Kind.INPAINT, height=512, width=512)
    result = await painter.paint(1, spec, inputs)
    assert result.ran == {"crop": [160, 160, 288, 288]}
    before = np.asarray(Image.open(io.BytesIO(inputs.init.data))).astype(int)
    is_changed = (pixels(result) != before).any(axis=-1)
    assert is_changed[200:260, 200:260].mean() > 0.9
    is_changed[200:260, 200:260] = False
    assert not is_changed.any()
    whole = await painter.paint(2, spec.model_copy(update={"full_frame": True}), inputs)
    assert whole.ran == {}


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("name", ["demo", "demo-inpaint"])
async def test_paint_over_a_scratch_leaves_nothing_of_it(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    name: str,
    width: int,
) -> None:
    plain, ink = np.array((250, 190, 215)), np.array((30, 30, 40))
    line = slice(97, 97 + width)  # between the pixels that stock pipelines look at
    init = np.full((256, 256, 3), plain, np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    init[line, 40:216], mask[line, 40:216] = ink, 255
    wish = {"prompt": "a pink background", "steps": 20, "guidance_scale": 3}
    spec = make_spec(kind=Kind.INPAINT, height=256, width=256, **wish)
    inputs = PreparedImages(encode(init), encode(mask))
    result = pixels(await make_painter(name, 256).paint(1, spec, inputs))
    kept = (result - plain)[mask > 0] @ (ink - plain) / ((ink - plain) ** 2).sum()
    assert np.abs(kept).max() < 0.1
    assert (result == init)[mask == 0].all()


@pytest.mark.parametrize(
    ("asked", "ran"),
    [
        pytest.param("KarrasVeScheduler", "HeunDiscreteScheduler", id="karras-ve"),
        pytest.param("DDIMInverseScheduler", "DDIMScheduler", id="ddim-inverse"),
        pytest.param("DDIMScheduler", None, id="as-asked"),
    ],
)
async def test_paint_says_which_sampler_ran_instead(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    asked: str,
    ran: str | None,
) -> None:
    result = await make_painter("plain").paint(1, make_spec(scheduler=asked), None)
    assert result.ran.get("scheduler") == ran


@pytest.mark.parametrize(
    ("changes", "ran"),
    [
        pytest.param({"scheduler": "EulerDiscreteScheduler"}, {}, id="taken"),
        pytest.param({"algorithm_type": "dpmsolver++"}, {}, id="told-by-the-name"),
        pytest.param(
            {"scheduler": "KarrasVeScheduler"},
            {"scheduler": "HeunDiscreteScheduler"},
            id="substitute",
        ),
    ],
)
async def test_paint_says_only_what_the_name_does_not(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    changes: dict[str, str],
    ran: dict[str, str],
) -> None:
    spec = make_spec(use_karras_sigmas=True, **changes)
    assert (await make_painter("plain").paint(1, spec, None)).ran == ran


async def test_paint_samples_and_a_second_try_encode_the_input_once(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    painter = make_painter("plain")
    encoder = painter._checkpoint.base.vae.encoder
    forward, rows = encoder.forward, []
    monkeypatch.setattr(encoder, "forward", lambda x: rows.append(len(x)) or forward(x))
    spec = make_spec(kind=Kind.IMG2IMG, strength=0.5, samples=3)
    inputs = images(64, (0, 0, 1, 1))
    first, again = [await painter.paint(number, spec, inputs) for number in range(2)]
    assert rows == [1]
    assert (pixels(first, 0) != pixels(first, 1)).any()
    assert np.abs(pixels(first, 1) - pixels(again, 1)).max() <= 1


@pytest.mark.parametrize("strength", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("kind", [Kind.IMG2IMG, Kind.INPAINT])
async def test_paint_any_strength_runs_at_least_one_step(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    kind: Kind,
    strength: float,
) -> None:
    spec = make_spec(kind=kind, strength=strength, steps=7)
    result = await make_painter("plain").paint(1, spec, images(64, (8, 8, 40, 40)))
    assert len(result.pictures) == 1


async def test_paint_clip_skip_beyond_the_layers_still_paints(
    make_painter: Callable[..., WeavePainter], make_spec: Callable[..., GenerationSpec]
) -> None:
    result = await make_painter("plain").paint(1, make_spec(clip_skip=8), None)
    assert result.ran["clip_skip"] == 4


async def test_paint_long_weighted_prompt_next_to_plain_ones(
    make_painter: Callable[..., WeavePainter], make_spec: Callable[..., GenerationSpec]
) -> None:
    painter = make_painter("plain")
    specs = [
        make_spec(prompt="(a cat:1.4) " + "and another " * 20, negative_prompt="[blurry]"),
        make_spec(prompt="a cat"),
        make_spec(prompt="a cat", guidance_scale=1.0),
    ]
    together = await asyncio.gather(*(painter.paint(n, one, None) for n, one in enumerate(specs)))
    for spec, result in zip(specs, together, strict=True):
        alone = await painter.paint(9, spec, None)
        assert np.abs(pixels(alone) - pixels(result)).max() <= 1


async def test_paint_non_finite_latents_fail_the_job_alone(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    painter = make_painter("plain")
    step = DDPMScheduler.step

    def poisoned(
        self: DDPMScheduler, output: torch.Tensor, *args: object, **kwargs: object
    ) -> object:
        return step(self, output * torch.nan, *args, **kwargs)

    monkeypatch.setattr(DDPMScheduler, "step", poisoned)
    bad, good = await asyncio.gather(
        painter.paint(1, make_spec(scheduler="DDPMScheduler"), None),
        painter.paint(2, make_spec(), None),
        return_exceptions=True,
    )
    assert isinstance(bad, errors.NonFiniteLatents)
    assert isinstance(good, Pictures)


async def test_paint_broken_pipeline_is_a_generation_failure(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    painter = make_painter("plain")

    def broken(*_args: object, **_kwargs: object) -> object:
        raise KeyError("inside diffusers")

    monkeypatch.setattr(Checkpoint, "pipeline", broken)
    with pytest.raises(errors.GenerationFailed):
        await painter.paint(1, make_spec(samples=2), None)
    painter.check_health()


async def test_tone_is_matched_inside_the_mask_alone(
    folder: Callable[[str], Path], make_spec: Callable[..., GenerationSpec]
) -> None:
    entry = ModelEntry(id="r", source=folder("plain"), kinds=tuple(Kind), native_size_px=64)
    made = []
    for match_tone in (True, False):
        config = CPU.model_copy(update={"match_tone": match_tone})
        painter = WeavePainter(entry, config, load_checkpoint(entry, config))
        made.append(
            await painter.paint(1, make_spec(kind=Kind.INPAINT), images(64, (8, 8, 40, 40)))
        )
        painter.close()
    changed = (pixels(made[0]) != pixels(made[1])).any(axis=2)
    assert changed[8:40, 8:40].any()
    changed[8:40, 8:40] = False
    assert not changed.any()


async def test_every_sample_is_run_on_behalf_of_the_owner_of_its_job(
    make_painter: Callable[..., WeavePainter],
    make_spec: Callable[..., GenerationSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Stake] = []
    submit = Engine.submit

    def spy(engine: Engine, request: Request) -> "Future[object]":
        seen.append(request.stake)
        return submit(engine, request)

    painter, stake = make_painter("plain"), Stake("somebody", 2.0, 1)
    monkeypatch.setattr(Engine, "submit", spy)
    await painter.paint(1, make_spec(samples=2), None, stake)
    assert seen == [stake, stake]
