"""A compiled denoiser: what it paints, and that no request ever waits for a compiler.

torch's own compiler takes half a minute per shape; a stand-in for it counts and runs what it gets.
"""

import asyncio
import io
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.engine.lane import Call
from serve_app.engine.lane import forward as run_calls
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import encode
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.checkpoints import RandomUNet, write_random_text2img
from serve_app.testing.controlnets import write_random_controlnet
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import (
    ControlNetUse,
    GenerationSpec,
    IpAdapterUse,
    Kind,
    LoraUse,
    PreparedImages,
)
from tests.engine.compiler import Compiler
from tests.engine.lora_files import MATRICES, kohya, make, save

CPU = EngineConfig(device="cpu", max_rows=4, row_buckets=(2, 4, 8), measure_rows=False)
COMPILED = CPU.model_copy(update={"compile": "default"})
ONE = COMPILED.model_copy(update={"row_buckets": (2,)})  # each takes seconds
MIX: dict[str, dict[str, object]] = {
    "plain": {},
    "another size": {"height": 96},
    "no guidance": {"guidance_scale": 1.0},
    "a LoRA": {"loras": (LoraUse(id="ink", strength=1.0),)},
    "a ControlNet": {"controlnets": (ControlNetUse(id="edges", scale=1.0),)},
    "a LoRA and a ControlNet": {
        "loras": (LoraUse(id="ink", strength=0.5),),
        "controlnets": (ControlNetUse(id="edges", scale=0.5),),
    },
    "an IP adapter": {"ip_adapter": IpAdapterUse(id="face", scale=0.8)},
    "token merging": {"tomesd": True},
    "self_attention": {"self_attention": True},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compiled")
    shape = RandomUNet(4, (8, 16), (True, True), sample_size=8)
    write_random_text2img(root / "model", seed=5, unet=shape)
    base = DiffusionPipeline.from_pretrained(root / "model", safety_checker=None)
    write_random_controlnet(root / "edges", base.unet)
    write_random_ip_adapter(root / "face", base.unet)
    save(kohya(make(base, MATRICES)), root / "ink.safetensors")
    return root


@pytest.fixture
def painter(files: Path) -> Callable[[EngineConfig], WeavePainter]:
    known = {
        "edges": AddOn(id="edges", type="controlnet", source=files / "edges"),
        "face": AddOn(id="face", type="ip_adapter", source=files / "face"),
        "ink": AddOn(id="ink", type="lora", source=files / "ink.safetensors"),
    }
    add_ons = AddOns("random", lambda add_on_id, _type: known.get(add_on_id))

    def load(config: EngineConfig) -> WeavePainter:
        entry = entry_of(files)
        return WeavePainter(entry, config, load_checkpoint(entry, config), add_ons)

    return load


def entry_of(files: Path) -> ModelEntry:
    return ModelEntry(id="random", source=files / "model", kinds=tuple(Kind), native_size_px=64)


def ready(painter: WeavePainter) -> int:
    """Wait until nothing is left to compile, and count what is ready."""
    compiled = painter._checkpoint.compiled
    deadline = time.monotonic() + 240
    while compiled.is_busy and time.monotonic() < deadline:
        time.sleep(0.05)
    return painter.snapshot().compiled_shapes


def paint(painter: WeavePainter, *names: str) -> dict[str, np.ndarray]:
    """Paint some of the mix side by side; grey levels."""
    random = np.random.default_rng(5)
    picture = encode(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    images = PreparedImages(init=picture, ip_adapter=picture, controls=(picture,))

    async def everything() -> list[np.ndarray]:
        specs = [spec_of(seed=list(MIX).index(name), **MIX[name]) for name in names]
        made = await asyncio.gather(
            *(painter.paint(number, spec, images) for number, spec in enumerate(specs))
        )
        return [np.asarray(Image.open(io.BytesIO(one.pictures[0].data))) for one in made]

    found = asyncio.run(everything())
    return {name: one.astype(int) for name, one in zip(names, found, strict=True)}


def spec_of(**changes: object) -> GenerationSpec:
    values: dict[str, object] = {
        "model_id": "random",
        "kind": Kind.TEXT2IMG,
        "prompt": "a red square",
        "height": 64,
        "width": 64,
        "steps": 3,
        "scheduler": "DDIMScheduler",
        "seed": 0,
    }
    return GenerationSpec.model_validate(values | changes)


@pytest.mark.slow
def test_mix_paints_the_same_and_compiles_nothing_in_service(
    painter: Callable[[EngineConfig], WeavePainter], compiler: Compiler
) -> None:
    with closing(painter(CPU)) as plain:
        expected = paint(plain, *MIX)
        assert (plain.snapshot().compiled_shapes, plain.snapshot().compiled_forwards) == (0, 0)
    with closing(painter(COMPILED)) as compiled:
        assert ready(compiled) == 2, "the native size at load, in both buckets that rows can have"
        found = paint(compiled, "plain")
        assert np.abs(found["plain"] - expected["plain"]).max() <= 1
        assert compiled.snapshot().compiled_forwards == compiled.snapshot().forwards - 1
        met = {name: paint(compiled, name)[name] for name in MIX}
        shapes = ready(compiled)
        assert shapes == 10, "two sizes, one with residuals, a LoRA and both too, in two buckets"
        before = compiled.snapshot()
        again = paint(compiled, *MIX)
        after = compiled.snapshot()
    assert set(compiler.threads) == {"compile"}
    assert len(compiler.threads) == shapes
    assert compiler.runs == shapes + after.compiled_forwards, "none fell back to the module"
    assert before.compiled_forwards < after.compiled_forwards
    for name, wanted in expected.items():
        assert np.abs(met[name] - wanted).max() <= 1, name
        assert np.abs(again[name] - wanted).max() <= 1, name


@pytest.mark.slow
def test_rows_are_filled_up_to_a_bucket_and_equal_those_of_the_module(
    files: Path, compiler: Compiler
) -> None:
    checkpoint = load_checkpoint(entry_of(files), COMPILED)
    lane = checkpoint.denoiser
    expected = {rows: forward([call(checkpoint, rows)], 8)[0] for rows in (1, 2, 3, 4, 5)}
    assert compiler.threads == []
    wait(checkpoint)
    for rows, outputs in expected.items():
        (found,) = forward([call(checkpoint, rows)], 8)
        assert isinstance(found, tuple)
        assert isinstance(outputs, tuple)
        assert found[0].shape == (rows, 4, 8, 8)
        assert float((found[0] - outputs[0]).abs().max()) < 1e-4
    assert checkpoint.compiled.forwards == 4, "five rows are more than one forward has"
    assert lane.name == "denoiser"


@pytest.mark.slow
def test_what_is_patched_meanwhile_is_in_no_graph(files: Path, compiler: Compiler) -> None:
    checkpoint = load_checkpoint(entry_of(files), ONE)
    (expected,) = forward([call(checkpoint, 2)], 8)
    checkpoint.variants.activate(Variant(merges_tokens=True, perturbs=True))
    merged = forward([call(checkpoint, 2)], 8)[0]
    wait(checkpoint)
    assert torch.equal(forward([call(checkpoint, 2)], 8)[0][0], merged[0])  # type: ignore[index]
    assert checkpoint.compiled.forwards == 0
    checkpoint.variants.activate(Variant())
    (found,) = forward([call(checkpoint, 2)], 8)
    assert checkpoint.compiled.forwards == 1
    assert float((found[0] - expected[0]).abs().max()) < 1e-4  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda outputs: [output + 1 for output in outputs], id="other-numbers"),
        pytest.param(lambda outputs: [output * torch.nan for output in outputs], id="no-numbers"),
        pytest.param(lambda outputs: outputs[5], id="failure"),
    ],
)
def test_graph_that_is_wrong_is_never_used(
    files: Path, compiler: Compiler, fault: Callable[[object], object]
) -> None:
    compiler.fault = fault
    checkpoint = load_checkpoint(entry_of(files), ONE)
    (expected,) = forward([call(checkpoint, 2)], 8)
    with structlog.testing.capture_logs() as logs:
        wait(checkpoint)
    (found,) = forward([call(checkpoint, 2)], 8)
    assert (checkpoint.compiled.shapes, checkpoint.compiled.forwards) == (0, 0)
    assert torch.equal(found[0], expected[0])  # type: ignore[index]
    told = [(entry["event"], entry["rows"], entry["size"]) for entry in logs]
    assert told == [("denoiser_not_compiled", 2, 256)]


@pytest.mark.slow
def test_graph_that_fails_in_service_is_given_up(files: Path, compiler: Compiler) -> None:
    checkpoint = load_checkpoint(entry_of(files), ONE)
    (expected,) = forward([call(checkpoint, 2)], 8)
    wait(checkpoint)
    compiler.fault = lambda outputs: outputs[5]  # type: ignore[index]
    (found,) = forward([call(checkpoint, 2)], 8)
    assert torch.equal(found[0], expected[0])  # type: ignore[index]
    assert (checkpoint.compiled.shapes, checkpoint.compiled.forwards) == (0, 0)


@pytest.mark.slow
def test_what_is_compiled_is_told_and_limited(files: Path, compiler: Compiler) -> None:
    config = ONE.model_copy(update={"compiled_shapes": 2})
    checkpoint = load_checkpoint(entry_of(files), config)
    for side in (8, 16, 24):
        forward([call(checkpoint, 2, side)], 8)
    with structlog.testing.capture_logs() as logs:
        wait(checkpoint)
    told = [(entry["event"], entry["rows"], entry["size"], entry["ready"]) for entry in logs]
    assert told == [
        ("denoiser_compiled", 2, 256, 1),
        ("denoiser_compiled", 2, 1024, 2),
    ]
    assert len(compiler.threads) == 2


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about its own `torch.jit`
def test_inductor_gives_what_the_module_gives(files: Path) -> None:
    """Needs a C++ compiler."""
    checkpoint = load_checkpoint(entry_of(files), ONE)
    (expected,) = forward([call(checkpoint, 2)], 8)
    checkpoint.compiled.start()
    while checkpoint.compiled.is_busy:  # what runs beside the compiler is none of its business
        (beside,) = forward([call(checkpoint, 2)], 8)
        assert float((beside[0] - expected[0]).abs().max()) < 1e-4  # type: ignore[index]
    before = checkpoint.compiled.forwards
    (found,) = forward([call(checkpoint, 2)], 8)
    assert checkpoint.compiled.forwards == before + 1
    assert float((found[0] - expected[0]).abs().max()) < 1e-4  # type: ignore[index]


@pytest.mark.slow
def test_row_caps_are_measured_without_graphs(files: Path, compiler: Compiler) -> None:
    """Else some row counts would be timed compiled, and others not."""
    checkpoint = load_checkpoint(entry_of(files), ONE)
    forward([call(checkpoint, 2)], 8)
    wait(checkpoint)
    forward([call(checkpoint, 2).unmarked()], 8)
    assert (checkpoint.compiled.shapes, checkpoint.compiled.forwards) == (1, 0)


def wait(checkpoint: Checkpoint) -> None:
    """Let a checkpoint without a painter compile what it met."""
    checkpoint.compiled.start()
    deadline = time.monotonic() + 240
    while checkpoint.compiled.is_busy and time.monotonic() < deadline:
        time.sleep(0.05)


@torch.inference_mode()
def forward(calls: list[Call], limit: int) -> list[object]:
    """Run calls as the engine's thread does; under another mode graphs are not fit to run."""
    return run_calls(calls, limit)


@torch.inference_mode()
def call(checkpoint: Checkpoint, rows: int, side: int = 8) -> Call:
    """Make the same call of the denoiser each time."""
    generator = torch.Generator().manual_seed(rows)
    arguments = {
        "sample": torch.randn(rows, 4, side, side, generator=generator),
        "timestep": torch.full((1,), 500.0).expand(rows),
        "encoder_hidden_states": torch.randn(rows, 77, 32, generator=generator),
        "return_dict": False,
    }
    return Call(checkpoint.denoiser, arguments, rows, 4 * side * side)
