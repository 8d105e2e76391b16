"""ControlNets as files: what is read, what is refused, what is kept."""

import asyncio
import io
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

from serve_app import errors
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.controlnets import ControlNets
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.compose import encode
from serve_app.pipelines.duplicate import duplicate
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.checkpoints import random_unet
from serve_app.testing.controlnets import random_controlnet, write_random_controlnet
from serve_app.types import (
    ControlNetUse,
    ControlType,
    GenerationSpec,
    Kind,
    Pictures,
    PreparedImages,
)
from tests.engine.conftest import SHAPES
from tests.engine.controlnet_files import (
    USUAL_PICTURE_LAYERS,
    WEIGHTS,
    add_tensor,
    break_config,
    break_number,
    claim,
    coarsen,
    ldm_name,
    lengthen,
    say_union,
    take_tensor,
    widen,
)
from tests.engine.weaving import CPU

MakeSpec = Callable[..., GenerationSpec]


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return random_unet(SHAPES["plain"])


@pytest.fixture(scope="module")
def known() -> dict[str, AddOn]:
    return {}


@pytest.fixture(scope="module")
def entry(folder: Callable[[str], Path]) -> ModelEntry:
    source = folder("plain")
    return ModelEntry(id="random", source=source, kinds=tuple(Kind), native_size_px=64)


@pytest.fixture(scope="module")
def add_ons(known: dict[str, AddOn]) -> AddOns:
    return AddOns("random", lambda add_on_id, _type: known.get(add_on_id))


@pytest.fixture(scope="module")
def painter(entry: ModelEntry, add_ons: AddOns) -> Iterator[WeavePainter]:
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU), add_ons)
    yield painter
    painter.close()


def write(known: dict[str, AddOn], name: str, source: Path) -> None:
    known[name] = AddOn(id=name, type="controlnet", source=source)


def shown(*sizes: tuple[int, int]) -> PreparedImages:
    values = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    return PreparedImages(
        controls=tuple(encode(np.asarray(picture.resize(size))) for size in sizes or [(64, 64)])
    )


def asking(make_spec: MakeSpec, *names: str, **changes: object) -> GenerationSpec:
    nets = tuple(ControlNetUse(id=name, scale=1.0) for name in names)
    return make_spec(controlnets=nets, **changes)


def pixels(pictures: Pictures) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[0].data))).astype(int)


@pytest.mark.slow
async def test_folder_and_single_files_of_either_naming_paint_the_same(
    painter: WeavePainter,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    write_random_controlnet(tmp_path / "folder", unet, 1, **USUAL_PICTURE_LAYERS)
    tensors = load_file(tmp_path / "folder" / WEIGHTS)
    save_file(tensors, tmp_path / "diffusers.safetensors")
    renamed = {f"control_model.{ldm_name(name)}": tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "ldm.safetensors")
    made = []
    for name in ("folder", "diffusers.safetensors", "ldm.safetensors"):
        write(known, name.partition(".")[0], tmp_path / name)
        spec = asking(make_spec, name.partition(".")[0])
        made.append(pixels(await painter.paint(1, spec, shown())))
    plain = pixels(await painter.paint(1, make_spec(), None))
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()
    assert np.abs(made[0] - plain).mean() > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        pytest.param(break_number, "NaN or infinity in .*conv_in.bias", id="nan"),
        pytest.param(take_tensor, "missing keys: controlnet_mid_block.bias", id="missing"),
        pytest.param(add_tensor, "unexpected keys: task_embedding", id="unexpected"),
        pytest.param(say_union, "found a model of the class ControlNetUnionModel", id="union"),
        pytest.param(break_config, "files of another form, expected a ControlNet", id="config"),
        pytest.param(widen, r"block_out_channels \(16, 32\), expected \(8, 16\)", id="channels"),
        pytest.param(lengthen, "layers_per_block 2, expected 1", id="layers"),
        pytest.param(coarsen, "cells of 4 pixels, expected 8", id="cells"),
        pytest.param(claim, "a file for Stable Diffusion XL", id="claims-another-family"),
    ],
)
async def test_controlnet_that_does_not_fit_fails_its_job_alone(
    harm: Callable[[Path], None],
    reason: str,
    painter: WeavePainter,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    write_random_controlnet(tmp_path / "bad", unet)
    harm(tmp_path / "bad")
    write(known, "bad", tmp_path / "bad")
    bad, fine = await asyncio.gather(
        painter.paint(1, asking(make_spec, "bad"), shown()),
        painter.paint(2, make_spec(), None),
        return_exceptions=True,
    )
    assert isinstance(fine, Pictures)
    assert isinstance(bad, errors.AddOnMisfit), bad
    assert bad.field == "controlnet_model"
    assert bad.detail.startswith("The ControlNet bad does not fit this model: found ")
    assert re.search(reason, bad.detail), bad.detail
    assert str(tmp_path) not in bad.detail


async def test_single_file_of_another_architecture_is_refused(
    painter: WeavePainter, known: dict[str, AddOn], tmp_path: Path, make_spec: MakeSpec
) -> None:
    widen(tmp_path / "wide")
    (tmp_path / "wide" / WEIGHTS).rename(tmp_path / "wide.safetensors")
    write(known, "wide", tmp_path / "wide.safetensors")
    with pytest.raises(errors.AddOnMisfit, match=r"of the shape \(.*expected \(") as caught:
        await painter.paint(1, asking(make_spec, "wide"), shown())
    assert caught.value.field == "controlnet_model"


@pytest.mark.slow
async def test_replaced_net_is_another_one_from_the_next_request_on(
    painter: WeavePainter,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    write(known, "grows", tmp_path)
    made = []
    for seed in (1, 1, 2):
        write_random_controlnet(tmp_path, unet, seed)
        made.append(pixels(await painter.paint(1, asking(make_spec, "grows"), shown())))
    assert (made[0] == made[1]).all()
    assert (made[1] != made[2]).any()


@pytest.mark.slow
async def test_nets_leave_for_others_unless_they_are_at_work(
    entry: ModelEntry,
    add_ons: AddOns,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    config = CPU.model_copy(update={"controlnet_bytes": 0})
    for seed, name in enumerate(("one", "two")):
        write_random_controlnet(tmp_path / name, unet, seed)
        write(known, name, tmp_path / name)
    stingy = WeavePainter(entry, config, load_checkpoint(entry, config), add_ons)
    specs = [asking(make_spec, name) for name in ("one", "two", "one")]
    alone = [pixels(await stingy.paint(1, spec, shown())) for spec in specs]
    held = stingy._checkpoint.controlnets._loaded._things
    assert len(held) == 1
    both = asking(make_spec, "one", "two")
    made = await asyncio.gather(
        *(stingy.paint(1, spec, shown()) for spec in specs),
        stingy.paint(2, both, shown((64, 64), (64, 64))),
    )
    stingy.close()
    for one, other in zip(alone, made, strict=False):
        assert np.abs(one - pixels(other)).max() <= 1


@pytest.mark.slow
async def test_net_larger_than_its_budget_is_not_kept_in_cpu_memory(
    entry: ModelEntry,
    add_ons: AddOns,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    for seed, name in enumerate("ab"):
        write_random_controlnet(tmp_path / name, unet, seed)
        write(known, name, tmp_path / name)
    config = CPU.model_copy(update={"controlnet_bytes": 0, "controlnet_host_bytes": 0})
    nets = load_checkpoint(entry, config).controlnets
    for name in "aba":
        nets.get(add_ons.of(asking(make_spec, name)).controlnets)
        assert not nets._host._things


@pytest.mark.slow
async def test_net_that_left_the_device_comes_back_from_cpu_memory(
    entry: ModelEntry,
    add_ons: AddOns,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[Path] = []
    read = ControlNets._read

    def counted(self: ControlNets, source: Path) -> object:
        reads.append(source)
        return read(self, source)

    monkeypatch.setattr(ControlNets, "_read", counted)
    for seed, name in enumerate("abc"):
        write_random_controlnet(tmp_path / name, unet, seed)
        write(known, name, tmp_path / name)
    made: dict[str, list[np.ndarray]] = {}
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    budgets = {"controlnet_bytes": 0, "controlnet_host_bytes": size * 3 // 2}
    config = CPU.model_copy(update=budgets)
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), add_ons)
    for name in "abacba":  # one is on the device, and one in CPU memory
        made.setdefault(name, []).append(
            pixels(await painter.paint(1, asking(make_spec, name), shown()))
        )
    painter.close()
    assert [source.name for source in reads] == ["a", "b", "c", "b", "a"]
    for name, pictures in made.items():
        assert all((one == pictures[0]).all() for one in pictures), name
    assert (made["a"][0] != made["b"][0]).any()


def test_weights_on_another_device_are_a_copy_and_the_same(unet: UNet2DConditionModel) -> None:
    net = random_controlnet(unet, 1)
    copied = duplicate(net, [net], "cpu")
    weights = dict(net.named_parameters()) | dict(net.named_buffers())
    for name, other in (*copied.named_parameters(), *copied.named_buffers()):
        assert torch.equal(weights[name], other)
        assert weights[name].data_ptr() != other.data_ptr()
    assert copied.config == net.config


def test_nobody_waits_for_a_net_that_another_request_loads(
    entry: ModelEntry,
    add_ons: AddOns,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ready", "slow"):
        write_random_controlnet(tmp_path / name, unet)
        write(known, name, tmp_path / name)
    nets = load_checkpoint(entry, CPU).controlnets
    ready, slow = (add_ons.of(asking(make_spec, name)).controlnets for name in ("ready", "slow"))
    first = nets.get(ready)
    entered, gate, load = threading.Event(), threading.Event(), ControlNets._load
    loads: list[str] = []

    def load_slowly(self: ControlNets, named: object) -> object:
        loads.append("slow")
        entered.set()
        gate.wait(30)
        return load(self, named)  # type: ignore[arg-type]

    put = nets._loaded.put

    def put_alone(*given: object) -> object:
        assert nets._lock.locked(), "others look there at the same time"
        return put(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ControlNets, "_load", load_slowly)
    monkeypatch.setattr(nets._loaded, "put", put_alone)
    waiting = [threading.Thread(target=nets.get, args=(slow,)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    assert entered.wait(30)
    assert nets.get(ready) == first
    gate.set()
    for thread in waiting:
        thread.join(30)
    assert loads == ["slow"], "the second one took what the first had loaded"
    assert nets._loads == {}, "a load that has ended leaves nothing"


async def test_control_that_cannot_be_shown_is_refused(
    painter: WeavePainter,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    write_random_controlnet(tmp_path, unet)
    write(known, "net", tmp_path)
    marks = (ControlNetUse(id="net", scale=1.0, hint=ControlType.INPAINT),)
    cases: list[tuple[str, GenerationSpec, PreparedImages | None]] = [
        ("control_image", asking(make_spec, "net"), None),
        ("control_image", asking(make_spec, "net"), shown((32, 64))),
        ("control_image", asking(make_spec, "net", "net"), shown()),
        ("mask_image", make_spec(controlnets=marks), PreparedImages(controls=(None,))),
        ("panorama", asking(make_spec, "net", panorama=True), shown()),
    ]
    for field, spec, images in cases:
        with pytest.raises((errors.InvalidRequest, errors.InvalidImage)) as caught:
            await painter.paint(1, spec, images)
        assert caught.value.field == field


@pytest.mark.slow
async def test_controls_work_with_highres_fix_samples_and_upscale(
    painter: WeavePainter,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    write_random_controlnet(tmp_path, unet)
    write(known, "net", tmp_path)
    size = {"height": 128, "width": 96, "highres_fix": True}
    spec = asking(make_spec, "net", samples=2, upscale=2, **size)
    images = shown((96, 128))
    result = await painter.paint(1, spec, images)
    assert [(one.height, one.width) for one in result.pictures] == [(256, 192)] * 2
    assert result.ran["first_pass"]
    without = await painter.paint(1, make_spec(samples=2, upscale=2, **size), None)
    assert np.abs(pixels(result) - pixels(without)).mean() > 1


async def test_size_left_open_is_that_of_the_control_picture(
    painter: WeavePainter,
    known: dict[str, AddOn],
    unet: UNet2DConditionModel,
    tmp_path: Path,
    make_spec: MakeSpec,
) -> None:
    write_random_controlnet(tmp_path, unet)
    write(known, "net", tmp_path)
    fit = {"area_px": 4096, "multiple_px": 8, "min_px": 8, "max_px": 512, "max_area_px": 65536}
    result = await painter.paint(1, asking(make_spec, "net", fit=fit), shown((96, 64)))
    assert (result.ran["W"], result.ran["H"]) == (96, 64)
