"""LoRAs come and go, and fail half way, and leave no trace."""

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons import lora_layers, loras
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.addons.lora_set import Adapter
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import IpAdapterUse, Kind
from tests.engine.lora_files import kohya, make, save
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.harm import DOWN, assert_refused, having
from tests.engine.loras.strengths import MakeSpec, plus, stingy, using
from tests.engine.weaving import CPU, TOLERANCE, Weaver, changed, difference, paint_stock

# peft warns of a second adapter, which is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")


@pytest.mark.slow
def test_good_bad_good_again_leaves_no_trace(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    """Each with its neighbours, and a DoRA in between."""
    good, other = make(base, seed=1), make(base, seed=2)
    add("good", kohya(good))
    add("dora", in_peft_names(other, is_dora=True))
    add("bad", having(DOWN, 4, 640, 3, 3)(kohya(other)))
    specs = {
        name: make_spec(loras=using((name, 1)) if name else ()) for name in ("good", "dora", "")
    }
    inked = {
        "good": changed(base, plus(good, 1)),
        "dora": changed(base, {key: own.decomposed for key, own in other.items()}),
        "": base,
    }
    truths = {name: paint_stock(inked[name], spec) for name, spec in specs.items()}
    order = ["good", "bad", "good", "", "bad", "dora", "bad", "", "dora", "good", "bad", ""]
    for name in order:
        if name == "bad":
            assert_refused(weaver, make_spec, "640")
        else:
            assert difference(weaver.paint(specs[name])[0], truths[name]) <= TOLERANCE, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (RuntimeError("/srv/x"), errors.AddOnMisfit),
        (torch.OutOfMemoryError("/srv/x"), errors.OutOfMemory),
    ],
    ids=["library", "memory"],
)
@pytest.mark.parametrize("step", ["to", "packed"])
def test_lora_that_cannot_be_placed_fails_its_own_request(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    meant: type[errors.DreamserveError],
    make_spec: MakeSpec,
) -> None:
    good, late = make(base, seed=1), make(base, seed=2)
    add("good", kohya(good))
    add("late", kohya(late))
    specs = {name: make_spec(loras=using((name, 1))) for name in ("good", "late")}
    before = weaver.paint(specs["good"])[0]

    def fail(*_: object) -> object:
        raise error

    owner = {"to": Adapter, "packed": lora_layers.LoraLayers}[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fail)
        for _ in range(2):
            with pytest.raises(meant) as caught:
                weaver.request(specs["late"])
            assert "/srv" not in caught.value.public_message
    truth = paint_stock(changed(base, plus(late, 1)), specs["late"])
    assert difference(weaver.paint(specs["late"])[0], truth) <= TOLERANCE
    assert torch.equal(weaver.paint(specs["good"])[0], before)


@pytest.mark.slow
def test_lora_that_left_leaves_nothing(
    folder: Callable[[str], Path], base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    add_ons = [
        AddOn(id=name, type="lora", source=save(kohya(make(base, seed=seed)), tmp_path / name))
        for seed, name in enumerate(("a.safetensors", "b.safetensors"))
    ]
    none = {"lora_bytes": 0, "lora_host_bytes": 0, "lora_batch_bytes": 1}
    weaver = Weaver(folder("attention"), add_ons, stingy(none))
    for add_on in add_ons * 2:
        weaver.paint(make_spec(loras=using((add_on.id, 1))))
    weaver.paint(make_spec())
    weaver.engine.close()
    gc.collect()
    held = [own for own in gc.get_objects() if type(own) is Adapter]  # asks no lazy module
    places = {str(tmp_path / add_on.path.name) for add_on in add_ons}
    own = [one for one in held if any(place in one.key for place in places)]
    # The latest is kept on the device, and none in CPU memory.
    assert len(own) == 1
    assert not any("forward" in vars(own) for own in weaver.checkpoint.base.unet.modules())


@pytest.mark.slow
def test_lora_that_left_the_device_comes_back_from_cpu_memory(
    folder: Callable[[str], Path],
    base: DiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(loras, "load_file", lambda file: read.append(file) or load_file(file))
    made = {name: make(base, seed=seed) for seed, name in enumerate("ab")}
    add_ons = [
        AddOn(id=name, type="lora", source=save(kohya(own), tmp_path / f"{name}.safetensors"))
        for name, own in made.items()
    ]
    weaver = Weaver(folder("attention"), add_ons, stingy({"lora_bytes": 0}))
    for name in "abab":
        spec = make_spec(loras=using((name, 1)))
        truth = paint_stock(changed(base, plus(made[name], 1)), spec)
        assert difference(weaver.paint(spec)[0], truth) <= TOLERANCE
    weaver.engine.close()
    assert [file.stem for file in read] == ["a", "b"]


@pytest.mark.slow
def test_prefetched_lora_is_not_read_again(
    folder: Callable[[str], Path],
    base: DiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    made = make(base)
    files = {
        "ink": save(kohya(made), tmp_path / "ink.safetensors"),
        "bad": save({"a": torch.ones(2, 7)}, tmp_path / "bad.safetensors"),
    }
    known = {name: AddOn(id=name, type="lora", source=file) for name, file in files.items()}
    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    add_ons = AddOns("random", lambda name, _type: known.get(name))
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU), add_ons)
    ink, bad, none = (make_spec(loras=using((name, 1))) for name in ("ink", "bad", "none"))

    async def prefetch_and_paint() -> None:
        for spec in (ink, bad, none):
            painter.prefetch(spec)  # what is wrong is for the paint to say
        while painter._num_hints:  # a thread ends it
            await asyncio.sleep(0.01)
        monkeypatch.delattr(loras, "load_file")
        await painter.paint(1, ink, None)
        with pytest.raises(errors.InvalidRequest, match="none"):
            await painter.paint(2, none, None)

    asyncio.run(prefetch_and_paint())
    painter.close()


def test_file_that_changes_in_place_does_not_change_what_was_read(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    made = make(base)
    add("ink", kohya(made))
    spec = make_spec(loras=using(("ink", 1)))
    request = weaver.request(spec)
    file = weaver.known[-1].path
    with file.open("r+b") as opened:  # the same file, which may be mapped
        opened.seek(-4096, 2)
        opened.write(b"\0" * 4096)
    picture = weaver.engine.submit(request).result(60).image
    assert difference(picture, paint_stock(changed(base, plus(made, 1)), spec)) <= TOLERANCE


def test_files_are_read_without_a_walk_through_modules_at_work(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    """The engine may be wrapping their layers, and a walk would end in an error."""
    add("ink", kohya(make(base)))
    save({"a": torch.ones(1, 32)}, tmp_path / "sun.safetensors")
    weaver.known.append(AddOn(id="sun", type="embedding", source=tmp_path / "sun.safetensors"))
    write_random_ip_adapter(tmp_path / "look", base.unet)
    weaver.known.append(AddOn(id="look", type="ip_adapter", source=tmp_path / "look"))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    checkpoint = weaver.checkpoint
    for module in (checkpoint.base.unet, checkpoint.base.text_encoder):
        for walk in ("named_modules", "named_parameters", "parameters", "modules", "children"):
            monkeypatch.setattr(module, walk, fail)
    adapter = IpAdapterUse(id="look", scale=1)
    weaver.request(make_spec(loras=using(("ink", 1)), embeddings=("sun",), ip_adapter=adapter))


@pytest.mark.slow
def test_downloads_of_others_hold_up_nobody_who_has_all_he_names(
    folder: Callable[[str], Path], base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    """Four jobs wait for an add-on, each with a prefetch before it."""
    file = save(kohya(make(base)), tmp_path / "ink.safetensors")
    known = {"ink": AddOn(id="ink", type="lora", source=file)}
    go = threading.Event()

    def find(name: str, _type: str) -> AddOn | None:
        if name == "slow":
            go.wait(60)
        return known.get(name)

    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU), AddOns("random", find))
    ink, slow = (make_spec(loras=using((name, 1)), steps=2) for name in ("ink", "slow"))

    async def paint_beside() -> None:
        for _ in range(4):
            painter.prefetch(slow)
        waiting = [asyncio.create_task(painter.paint(number, slow, None)) for number in range(4)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(painter.paint(9, ink, None), 30)
        assert not any(task.done() for task in waiting)
        go.set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, errors.InvalidRequest) for one in ended)

    asyncio.run(paint_beside())
    painter.close()
