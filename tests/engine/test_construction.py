"""Constructing modules changes nothing for other threads, which construct and paint meanwhile."""

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTextModel, PreTrainedModel

from serve_app.config import EngineConfig
from serve_app.models import AddOn, AddOnType, ModelEntry
from serve_app.pipelines import loader
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import encode
from serve_app.pipelines.construction import keep_in_threads
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.checkpoints import random_vae
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import GenerationSpec, IpAdapterUse, Kind, LoraUse, PreparedImages
from tests.engine.test_families import make_flux, make_sd3, make_xl
from tests.weight_files import write_lora

CPU = EngineConfig(device="cpu", measure_rows=False)
CPU_DEVICE = torch.device("cpu")
WAIT_S = 60
Load = Callable[[], object]


def process() -> tuple[object, ...]:
    """What libraries are known to change while they construct."""
    drawn = (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, nn.init.zeros_)
    shared = (nn.Module.register_parameter, PreTrainedModel.tie_weights, torch.linspace)
    return (torch.get_default_dtype(), *shared, *drawn)


@contextmanager
def held(load: Load) -> Iterator[None]:
    """Have another thread load something, and stop it at the first parameter it makes."""
    inside, may_go_on = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            load()
        except BaseException as exc:
            failed.append(exc)

    def stop(_module: nn.Module, _name: str, _param: nn.Parameter) -> None:
        if threading.current_thread() is thread:
            inside.set()
            assert may_go_on.wait(WAIT_S)

    thread = threading.Thread(target=run)
    handle = register_module_parameter_registration_hook(stop)
    thread.start()
    try:
        assert inside.wait(WAIT_S)
        yield
    finally:
        may_go_on.set()
        thread.join(WAIT_S)
        handle.remove()
    assert not failed


@pytest.fixture(scope="module")
def loads(
    folder: Callable[[str], Path], checkpoint: Callable[[str], Checkpoint]
) -> dict[str, Load]:
    """Load parts of a checkpoint in float16, one by diffusers and one by transformers."""
    source = folder("attention")
    checkpoint("attention")  # the first load of a process prepares the libraries
    half = torch.float16
    return {
        "diffusers": lambda: UNet2DConditionModel.from_pretrained(
            source / "unet", torch_dtype=half, local_files_only=True
        ),
        "transformers": lambda: CLIPTextModel.from_pretrained(
            source / "text_encoder", dtype=half, local_files_only=True
        ),
    }


@pytest.fixture(scope="module")
def new_painter(
    folder: Callable[[str], Path],
    checkpoint: Callable[[str], Checkpoint],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], WeavePainter]]:
    """Make painters that have done nothing yet; add-ons are loaded when they are named."""
    source, root = folder("attention"), tmp_path_factory.mktemp("add-ons")
    entry = ModelEntry(id="attention", source=source, kinds=tuple(Kind), native_size_px=64)
    torch.manual_seed(5)
    write_random_ip_adapter(root / "picture", checkpoint("attention").base.unet)
    write_lora(source, root / "lora")
    random_vae().save_pretrained(root / "vae")
    save_file({"emb_params": torch.randn(2, 32)}, root / "sun.safetensors")
    sources: dict[tuple[str, AddOnType], Path] = {
        ("picture", "ip_adapter"): root / "picture",
        ("lora", "lora"): root / "lora" / "pytorch_lora_weights.safetensors",
        ("vae", "vae"): root / "vae",
        ("sun", "embedding"): root / "sun.safetensors",
    }

    def find(id_: str, kind: AddOnType) -> AddOn | None:
        path = sources.get((id_, kind))
        return None if path is None else AddOn(id=id_, type=kind, source=path)

    made: list[WeavePainter] = []

    def make() -> WeavePainter:
        made.append(WeavePainter(entry, CPU, load_checkpoint(entry, CPU), AddOns(entry.id, find)))
        return made[-1]

    yield make
    for painter in made:
        painter.close()


@pytest.fixture(scope="module")
def paint_alone(new_painter: Callable[[], WeavePainter]) -> Callable[[GenerationSpec], np.ndarray]:
    """Paint a spec while nothing else happens; each once."""
    painter, painted = new_painter(), dict[str, np.ndarray]()

    def paint_once(spec: GenerationSpec) -> np.ndarray:
        key = spec.model_dump_json()
        if key not in painted:
            painted[key] = paint(painter, spec)
        return painted[key]

    return paint_once


def paint(painter: WeavePainter, spec: GenerationSpec) -> np.ndarray:
    picture = np.full((64, 64, 3), 90, np.uint8)
    images = PreparedImages(ip_adapter=encode(picture)) if spec.ip_adapter else None
    made = asyncio.run(painter.paint(1, spec, images))
    return np.asarray(Image.open(io.BytesIO(made.pictures[0].data)))


LIBRARIES = ("diffusers", "transformers")
NAMED: dict[str, dict[str, object]] = {
    "vae": {"vae": "vae"},
    "lora": {"loras": (LoraUse(id="lora", strength=1.0),)},
    "embedding": {"prompt": "sun", "embeddings": ("sun",)},
    "ip_adapter": {"ip_adapter": IpAdapterUse(id="picture", scale=0.8)},
}
# Paints that make tensors without naming a dtype: with float16 they differ.
UNNAMED: dict[str, dict[str, object]] = {
    "sampler": {"scheduler": "LCMScheduler"},
    "weights": {"prompt": "a (green:1.2) star", "clip_skip": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_load_in_float16_changes_the_process_at_no_moment(
    loads: dict[str, Load], library: str
) -> None:
    before, changed = process(), list[str]()

    def look(frame: FrameType, _event: str, _arg: object) -> None:
        if process() != before:
            changed.append(frame.f_code.co_qualname)

    sys.setprofile(look)
    try:
        loads[library]()
    finally:
        sys.setprofile(None)
    assert changed == []


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", NAMED | UNNAMED)
def test_paint_beside_a_construction_is_equal_to_the_bit(
    loads: dict[str, Load],
    library: str,
    name: str,
    new_painter: Callable[[], WeavePainter],
    paint_alone: Callable[[GenerationSpec], np.ndarray],
    make_spec: Callable[..., GenerationSpec],
) -> None:
    spec = make_spec(**(NAMED | UNNAMED)[name])
    alone, beside = paint_alone(spec), new_painter()
    with held(loads[library]):
        assert np.array_equal(paint(beside, spec), alone)
    assert not np.array_equal(alone, paint_alone(make_spec()))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNNAMED)
def test_those_paints_would_show_another_default_dtype(
    name: str,
    new_painter: Callable[[], WeavePainter],
    paint_alone: Callable[[GenerationSpec], np.ndarray],
    make_spec: Callable[..., GenerationSpec],
) -> None:
    spec = make_spec(**UNNAMED[name])
    alone, other = paint_alone(spec), new_painter()
    torch.set_default_dtype(torch.float16)
    try:
        assert not np.array_equal(paint(other, spec), alone)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("first", LIBRARIES)
@pytest.mark.parametrize("second", LIBRARIES)
def test_constructions_that_overlap_leave_the_process_as_it_was(
    loads: dict[str, Load], first: str, second: str
) -> None:
    before = process()
    one = held(loads[first])
    one.__enter__()
    with held(loads[second]):
        one.__exit__(None, None, None)  # the first to begin is the first to end
    assert process() == before
    assert next(random_vae().parameters()).device.type == "cpu"


class Draws(TorchDispatchMode):
    """Notes what draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.seen.append(str(func))
        return func(*args, **kwargs or {})


def test_weights_that_are_read_are_not_drawn_before(folder: Callable[[str], Path]) -> None:
    """On the meta device a draw is slow, and there are hundreds."""
    source = folder("attention") / "unet"
    keep_in_threads()
    with Draws() as draws:
        UNet2DConditionModel.from_pretrained(source)
    assert draws.seen == []


def test_failed_construction_leaves_the_dtype(loads: dict[str, Load], tmp_path: Path) -> None:
    loads["diffusers"]()
    random_vae().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("DownEncoderBlock2D", "NoSuchBlock"))
    with pytest.raises(ValueError, match="NoSuchBlock"):
        AutoencoderKL.from_pretrained(tmp_path, torch_dtype=torch.float16, local_files_only=True)
    assert torch.get_default_dtype() is torch.float32
    assert next(random_vae().parameters()).dtype is torch.float32


STOCK = """
import json, pathlib, sys, diffusers, torch
for name in sys.argv[1:]:
    index = json.loads(pathlib.Path(name, "model_index.json").read_text())
    absent = {part: None for part, value in index.items() if value == [None, None]}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        name, dtype=torch.float16, local_files_only=True, **absent
    )
    torch.save({
        part: [(key, tensor.clone()) for key, tensor in
               (*module.named_parameters(), *module.named_buffers())]
        for part, module in pipeline.components.items() if isinstance(module, torch.nn.Module)
    }, name + ".pt")
"""


@pytest.mark.slow
def test_loads_are_those_of_stock_libraries(
    loads: dict[str, Load], folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Parameters and buffers of all families, by name, dtype and value."""
    loads["diffusers"]()
    folders = [tmp_path / "sd", tmp_path / "xl", tmp_path / "sd3", tmp_path / "flux"]
    folders[0].symlink_to(folder("attention"))
    torch.manual_seed(2)
    for path, make in zip(folders[1:], (make_xl, make_sd3, make_flux), strict=True):
        make().save_pretrained(path)
    names = [str(path) for path in folders]
    subprocess.run([sys.executable, "-c", STOCK, *names], check=True, timeout=300)
    for path in folders:
        entry = ModelEntry(id=path.name, source=path, kinds=tuple(Kind), dtype="float16")
        components = loader._read(entry, CPU_DEVICE, channels_last=False).components
        stock = torch.load(f"{path}.pt")
        stock.pop("safety_checker", None)
        for part, tensors in stock.items():
            module = components[part]
            ours = dict((*module.named_parameters(), *module.named_buffers()))
            assert ours.keys() == dict(tensors).keys()
            for key, tensor in tensors:
                assert ours[key].dtype is tensor.dtype, (path.name, part, key)
                assert torch.equal(ours[key], tensor), (path.name, part, key)
