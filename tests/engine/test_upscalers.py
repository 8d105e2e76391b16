"""`upscale` by networks of the catalogue: the arithmetic of the papers, in tiles, for one job."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from serve_app import errors
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns, Named
from serve_app.pipelines.addons.lru import Uses
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.addons.super_resolution import Network, read_network
from serve_app.pipelines.addons.upscalers import Upscaler, Upscalers
from serve_app.pipelines.compose import enlarge
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.types import GenerationSpec, Kind, Pictures
from tests.engine.upscaler_files import FORMS, Tensors, by_hand, compact, nearest, old
from tests.engine.weaving import CPU

MakeSpec = Callable[..., GenerationSpec]
Put = Callable[[str, Tensors], AddOn]
ON_CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _drawn() -> None:
    torch.manual_seed(5)


@pytest.mark.parametrize("form", FORMS)
def test_network_of_each_published_form_equals_the_arithmetic(form: str) -> None:
    scale, make = FORMS[form]
    tensors, picture = make(), torch.rand(1, 3, 16, 24)
    network = read_network({name: tensor.half() for name, tensor in tensors.items()})
    rounded = {name: tensor.half().float() for name, tensor in tensors.items()}
    with torch.inference_mode():
        made = network(picture)
    assert network.scale == scale
    assert made.shape == (1, 3, 16 * scale, 24 * scale)
    torch.testing.assert_close(made, by_hand(rounded, picture, scale), atol=1e-5, rtol=1e-5)


def upscaler(network: Network, tile_px: int, overlap_px: int) -> Upscaler:
    named = Named(AddOn(id="sharp", type="upscaler", source=Path("nowhere")), "key")
    return Upscaler(named, network.eval(), ON_CPU, tile_px, overlap_px)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_tiles_give_what_the_whole_gives(scale: int, factor: int) -> None:
    network, whole = read_network(compact(scale)), picture(72, 56)
    sides: list[int] = []
    network.register_forward_pre_hook(lambda _, given: sides.extend(given[0].shape[2:]))
    tiled = upscaler(network, 16, 16).enlarge(whole, factor, Event())
    assert max(sides) == 48  # whatever the size of the picture
    at_once = upscaler(network, 4096, 8).enlarge(whole, factor, Event())
    assert tiled.shape == (72 * factor, 56 * factor, 3)
    assert np.abs(tiled.astype(int) - at_once).max() <= 1
    blind = upscaler(network, 16, 0).enlarge(whole, factor, Event())
    assert np.abs(blind.astype(int) - at_once).max() > 1


def test_network_that_sees_squares_of_pixels_takes_tiles_of_any_picture() -> None:
    network = read_network(FORMS["new-x1"][1]())
    made = upscaler(network, 16, 8).enlarge(picture(40, 72), 2, Event())
    assert made.shape == (80, 144, 3)


def test_nearest_neighbour_by_hand_gives_the_known_picture() -> None:
    small = picture(40, 56)
    made = upscaler(read_network(nearest()), 16, 8).enlarge(small, 2, Event())
    assert (made == small.repeat(2, 0).repeat(2, 1)).all()
    thrice = upscaler(read_network(nearest()), 4096, 8).enlarge(small, 3, Event())
    doubled = Image.fromarray(small.repeat(2, 0).repeat(2, 1))
    assert (thrice == np.asarray(doubled.resize((168, 120), Image.Resampling.LANCZOS))).all()


# -- End to end -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known() -> dict[str, AddOn]:
    return {}


@pytest.fixture(scope="module")
def painter(folder: Callable[[str], Path], known: dict[str, AddOn]) -> Iterator[WeavePainter]:
    entry = ModelEntry(
        id="random", source=folder("attention"), kinds=tuple(Kind), native_size_px=64
    )
    config = CPU.model_copy(update={"upscaler_tile_px": 64})
    add_ons = AddOns(entry.id, lambda name, _type: known.get(name))
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), add_ons)
    yield painter
    painter.close()


@pytest.fixture
def put(known: dict[str, AddOn], tmp_path: Path) -> Put:
    def put(name: str, tensors: Tensors) -> AddOn:
        file = tmp_path / f"{name}.safetensors"
        save_file(tensors, file)
        known[name] = AddOn(id=name, type="upscaler", source=file)
        return known[name]

    return put


def pixels(pictures: Pictures, number: int = 0) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[number].data)))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
async def test_painter_enlarges_with_a_file_of_each_form(
    painter: WeavePainter, put: Put, make_spec: MakeSpec, form: str
) -> None:
    scale, make = FORMS[form]
    tensors = make()
    put(form, tensors)
    small = pixels(await painter.paint(1, make_spec(), None))
    made = pixels(await painter.paint(2, make_spec(upscale=2, upscaler=form), None))
    values = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
    levels = by_hand(tensors, values, scale)[0].clamp(0, 1).mul(255).round().byte()
    wanted = Image.fromarray(levels.permute(1, 2, 0).numpy())
    if scale != 2:
        wanted = wanted.resize((128, 128), Image.Resampling.LANCZOS)
    assert np.abs(made.astype(int) - np.asarray(wanted)).max() <= 1
    assert np.abs(made.astype(int) - enlarge(small, 2)).max() > 10


async def test_samples_and_neighbours_are_enlarged_each_in_their_way(
    painter: WeavePainter, put: Put, make_spec: MakeSpec
) -> None:
    put("nearest", nearest())
    plain = await painter.paint(1, make_spec(samples=2), None)
    two, beside, large = await asyncio.gather(
        painter.paint(2, make_spec(samples=2, upscale=2, upscaler="nearest"), None),
        painter.paint(3, make_spec(upscale=2), None),
        painter.paint(4, make_spec(), None),
    )
    for number in (0, 1):
        small = pixels(plain, number)
        assert (pixels(two, number) == small.repeat(2, 0).repeat(2, 1)).all()
    assert (pixels(beside) == enlarge(pixels(plain), 2)).all()
    assert (pixels(large) == pixels(plain)).all()


def without(tensors: Tensors, name: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(name)}


def test_tensors_that_make_no_network_are_refused_with_what_was_found() -> None:
    whole = FORMS["new-x1"][1]()
    twice = whole | {"HRconv.weight": whole["conv_hr.weight"]}
    small = whole | {"conv_hr.weight": whole["conv_hr.weight"][:1]}
    for tensors, found in (
        (twice, "two tensors for conv_hr.weight"),
        (small, "conv_hr.weight of the shape (1, 12, 3, 3), expected (12, 12, 3, 3)"),
        (whole | {"body.0.weight": torch.ones(3, 3, 3, 3)}, "body.0.weight, which the model lacks"),
        ({}, "no convolution conv_first"),
    ):
        with pytest.raises(Unfit) as refusal:
            read_network(tensors)
        assert str(refusal.value).startswith(f"found {found}"), found


def test_network_of_another_form_is_refused_with_what_was_found() -> None:
    grey = compact(2) | {"body.0.weight": torch.ones(12, 1, 3, 3)}
    for tensors, found in (
        (grey, "an upscaler of 1 channels"),
        (BAD["no-square"][0](), "an upscaler of 3 channels"),
        (BAD["too-large"][0](), "an upscaler by a factor of 9"),
        (esrgan_of(1), "an upscaler of 1 channels"),
    ):
        with pytest.raises(Unfit, match=rf"^found {found}, expected ."):
            read_network(tensors)


BAD: dict[str, tuple[Callable[[], Tensors], str]] = {
    "esrgan-plus": (
        lambda: old(2) | {"model.1.sub.0.RDB1.conv1x1.weight": torch.ones(4, 12, 1, 1)},
        "model.1.sub.0.RDB1.conv1x1.weight, which the model lacks",
    ),
    "grey": (lambda: esrgan_of(1), "an upscaler of 1 channels"),
    "no-end": (lambda: without(old(2), "model.10"), "found"),
    "one-layer-short": (lambda: without(old(2), "model.1.sub.1.RDB2.conv3"), "body.1.rdb2.conv3"),
    "too-large": (lambda: compact(9), "a factor of 9"),
    "no-square": (
        lambda: without(compact(2), "body.6") | {"body.6.weight": torch.ones(11, 12, 3, 3)},
        "an upscaler of 3 channels",
    ),
    "nan": (lambda: old(1) | {"model.3.bias": torch.full((12,), torch.nan)}, "NaN"),
    "a-vae": (lambda: {"decoder.conv_in.weight": torch.ones(4, 4, 3, 3)}, "no convolution"),
    "overflow": (
        lambda: old(1) | {"model.5.weight": torch.full((12, 12, 3, 3), 3e38)},
        "NaN or infinite",
    ),
}


def esrgan_of(channels: int) -> Tensors:
    tensors = old(2)
    return tensors | {"model.0.weight": torch.ones(12, channels, 3, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BAD)
async def test_bad_file_fails_its_own_job_with_the_reason(
    painter: WeavePainter, put: Put, make_spec: MakeSpec, fault: str
) -> None:
    make, reason = BAD[fault]
    put("bad", make())
    put("good", nearest())
    bad, good = await asyncio.gather(
        painter.paint(1, make_spec(upscale=2, upscaler="bad"), None),
        painter.paint(2, make_spec(upscale=2, upscaler="good"), None),
        return_exceptions=True,
    )
    assert isinstance(bad, errors.AddOnMisfit)
    assert bad.field == "upscale"
    assert reason in bad.public_message
    assert isinstance(good, Pictures)


async def test_unknown_upscaler_is_an_error_of_the_field(
    painter: WeavePainter, make_spec: MakeSpec
) -> None:
    with pytest.raises(errors.InvalidRequest) as refusal:
        await painter.paint(1, make_spec(upscale=2, upscaler="gone"), None)
    assert refusal.value.field == "upscale"


async def test_client_that_leaves_ends_the_work_after_a_tile(
    painter: WeavePainter, put: Put, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("slow", nearest())
    started, go, tiles = Event(), Event(), []
    run = Upscaler._run

    def slow(self: Upscaler, seen: np.ndarray, factor: int) -> np.ndarray:
        tiles.append(seen.shape)
        started.set()
        go.wait(30)
        return run(self, seen, factor)

    monkeypatch.setattr(Upscaler, "_run", slow)
    task = asyncio.create_task(painter.paint(1, make_spec(upscale=2, upscaler="slow"), None))
    await asyncio.to_thread(started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    monkeypatch.undo()
    await painter.paint(2, make_spec(upscale=2, upscaler="slow"), None)  # its turn is after that
    assert len(tiles) == 1


def test_upscalers_beyond_the_budget_leave_unless_they_are_used(put: Put) -> None:
    files = {name: put(name, nearest()) for name in ("one", "two", "three")}
    named = {name: Named(file, name) for name, file in files.items()}
    for budget, stays in ((0, False), (2**20, True)):
        config, uses = CPU.model_copy(update={"upscaler_bytes": budget}), Uses()
        upscalers = Upscalers(ON_CPU, config, uses)
        first = upscalers.get(named["one"])
        with uses.holding(["one"]):
            upscalers.get(named["two"])
            assert upscalers.get(named["one"]) is first
        upscalers.get(named["three"])
        assert (upscalers.get(named["one"]) is first) is stays
    assert upscalers.get(None) is None
