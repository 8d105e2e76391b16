"""Random checkpoints, made once per run, and pictures to paint on."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.lane import Lane
from serve_app.engine.row_cap_store import RowCapStore
from serve_app.models import ModelEntry
from serve_app.pipelines.addons import lora_merging
from serve_app.pipelines.addons.lora_merging import Merging, SiblingLayers
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.checkpoints import RandomUNet, write_random_inpaint
from serve_app.types import GenerationSpec, Kind
from tests.engine.compiler import Compiler
from tests.engine.toys import Denoiser

torch.set_num_threads(1)

SHAPES = {
    "inpaint": RandomUNet(9, (8, 16), (False, True)),
    "plain": RandomUNet(4, (8, 16), (False, True)),
    "velocity": RandomUNet(4, (8, 16), (False, True), prediction_type="v_prediction"),
    "attention": RandomUNet(4, (16, 32), (True, True), sample_size=8),
    "deep": RandomUNet(4),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a random checkpoint by the name of its shape, each once; or find a trained one."""
    trained = Path(__file__).parents[2] / "checkpoints"
    root = tmp_path_factory.mktemp("checkpoints")

    def write(name: str) -> Path:
        if (trained / name).exists():
            return trained / name
        if not (root / name).exists():
            write_random_inpaint(root / name, seed=len(name), unet=SHAPES[name])
        return root / name

    return write


@pytest.fixture(scope="session")
def checkpoint(folder: Callable[[str], Path]) -> Callable[[str], Checkpoint]:
    """Load a checkpoint by its name; each once."""
    loaded: dict[str, Checkpoint] = {}

    def load(name: str) -> Checkpoint:
        if name not in loaded:
            entry = ModelEntry(id=name, source=folder(name), kinds=tuple(Kind))
            loaded[name] = load_checkpoint(entry, EngineConfig(device="cpu"))
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def canvas() -> Canvas:
    """A 64 x 64 picture with the mask of a box, of whole latent cells of 8 and of 16 pixels."""
    random = np.random.default_rng(3)
    init = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 16, 48, 64))
    return Canvas(init, mask, (0, 0, 64, 64))


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., GenerationSpec]:
    """Make a spec from what differs from a plain text2img of 64 x 64."""

    def make(**changes: object) -> GenerationSpec:
        values: dict[str, object] = {
            "model_id": "random",
            "kind": Kind.TEXT2IMG,
            "prompt": "a red square",
            "height": 64,
            "width": 64,
            "steps": 4,
            "scheduler": "DDIMScheduler",
            "seed": 7,
        }
        return GenerationSpec.model_validate(values | changes)

    return make


@pytest.fixture(params=["merged", "products"])
def lora_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run layers either way; so small, all would have weights of each group's own."""
    ways = set[str]()
    run, merge = Merging._run, lora_merging._merge

    def watch_run(merging: Merging, number: int, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32:  # in half precision there are products alone
            ways.add("products")
        return run(merging, number, x)

    def watch_merge(*given: Any) -> Any:
        ways.add("merged")
        return merge(*given)

    monkeypatch.setattr(Merging, "_run", watch_run)
    monkeypatch.setattr(lora_merging, "_merge", watch_merge)
    if request.param == "products":
        monkeypatch.setattr(SiblingLayers, "pays", lambda *_: False)
    yield
    assert not ways or ("merged" in ways) is (request.param == "merged")


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser()


@pytest.fixture
def lane(denoiser: Denoiser) -> Lane:
    return Lane("denoiser", denoiser)


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(
        activate: Callable[[object], None] = lambda _: None,
        row_cap_store: RowCapStore | None = None,
        **settings: object,
    ) -> Engine:
        config = EngineConfig.model_validate({"measure_rows": False} | settings)
        made.append(Engine(config, activate, row_cap_store))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    own, stand_in = torch.compile, Compiler()

    def compile_with(function: Callable[..., object], mode: str, **options: bool) -> object:
        assert mode == "default"
        return own(function, backend=stand_in, **options)

    monkeypatch.setattr(torch, "compile", compile_with)
    # pytest takes down every line of it, which takes a minute per shape.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    yield stand_in
    torch.compiler.reset()
