"""How LoRAs are fetched and read: side by side, within limits, and judged with their strengths."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons import loras
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.types import Kind
from tests.engine.lora_files import LAYERS, kohya, make, save
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.strengths import MakeSpec, Tensors, plus, stingy, using
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock


@pytest.mark.slow
@pytest.mark.parametrize("reads", [1, 2, 4])
def test_loras_of_one_request_are_read_side_by_side_within_the_limit(
    folder: Callable[[str], Path],
    base: DiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
    reads: int,
) -> None:
    lock, at_work, most = threading.Lock(), [0], [0]
    all_there = threading.Barrier(reads)

    def load(file: Path) -> Tensors:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        all_there.wait(30)  # nobody comes on while others are not at it
        with lock:
            at_work[0] -= 1
        return load_file(file)

    monkeypatch.setattr(loras, "load_file", load)
    made = {name: make(base, seed=seed) for seed, name in enumerate("abcd")}
    add_ons = [
        AddOn(id=name, type="lora", source=save(kohya(own), tmp_path / f"{name}.safetensors"))
        for name, own in made.items()
    ]
    weaver = Weaver(folder("attention"), add_ons, stingy({"lora_reads": reads}))
    spec = make_spec(loras=using(*((name, 0.5) for name in made)))
    woven = weaver.paint(spec)[0]
    weaver.engine.close()
    assert most[0] == reads
    expected = base
    for own in made.values():
        expected = changed(expected, plus(own, 0.5))
    assert difference(woven, paint_stock(expected, spec)) <= TOLERANCE


def test_two_files_of_one_request_are_read_side_by_side(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    both, kept = threading.Barrier(2), weaver.checkpoint.loras._kept

    def load(file: Path) -> Tensors:
        both.wait(10)
        return load_file(file)

    def under_lock(call: Callable[..., object]) -> Callable[..., object]:
        def called(*given: object) -> object:
            assert weaver.checkpoint.loras._lock.locked(), "others look there at the same time"
            return call(*given)

        return called

    for name in ("get", "put"):
        monkeypatch.setattr(kept, name, under_lock(getattr(kept, name)))
    monkeypatch.setattr(loras, "load_file", load)
    for name in ("ink", "pen"):
        add(name, kohya(make(base, {"unet": LAYERS["unet"][:1]})))
    spec = make_spec(loras=using(("pen", 0.5), ("ink", 2)))
    named = weaver._add_ons.of(spec).loras
    uses = [(adapter.key, strength) for adapter, strength in weaver.request(spec).body.loras.uses]
    assert uses == [(named["ink"].key, 2), (named["pen"].key, 0.5)]


class Watched:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._lock, self._tell = threading.Lock(), tell

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._tell()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_file_that_two_ask_for_at_once_is_read_once(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    begun, joined, read = threading.Event(), threading.Event(), list[Path]()

    def load(file: Path) -> Tensors:
        read.append(file)
        (joined if begun.is_set() else begun).set()
        assert joined.wait(30), "the other one neither waits for its turn nor reads"
        return load_file(file)

    monkeypatch.setattr(loras, "load_file", load)
    monkeypatch.setattr(loras, "Lock", lambda: Watched(joined.set))
    add("ink", kohya(make(base, {"unet": LAYERS["unet"][:1]})))
    spec = make_spec(loras=using(("ink", 1)))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(weaver.request, spec)
        assert begun.wait(30)
        second = threads.submit(weaver.request, spec)
        assert first.result(30).body.loras is second.result(30).body.loras
    assert len(read) == 1


def overflowing(tensors: Tensors) -> Tensors:
    """Make ups that can be multiplied by 3, and magnitudes that no strength leaves small."""
    values = {"lora_up": 1e38, "lora_B": 1e38, "lora_down": 1e-30, "lora_A": 1e-30}
    values |= {"magnitude": 1e11}
    return {
        name: torch.full_like(tensor, value)
        for name, tensor in tensors.items()
        for key, value in values.items()
        if key in name
    }


@pytest.mark.parametrize(("form", "strength"), [("lora", 10), ("dora", 1)], ids=["lora", "dora"])
def test_strength_that_makes_numbers_overflow_is_an_error_of_its_field(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    make_spec: MakeSpec,
    form: str,
    strength: float,
) -> None:
    made = make(base, {"unet": LAYERS["unet"][:2]})
    add("ink", overflowing(kohya(made) if form == "lora" else in_peft_names(made, is_dora=True)))
    if form == "lora":
        weaver.request(make_spec(loras=using(("ink", 1))))
    with pytest.raises(errors.AddOnMisfit, match=f"overflow at a strength of {strength}") as told:
        weaver.request(make_spec(loras=using(("ink", strength))))
    assert told.value.field == "lora_model"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_prefetches_beyond_the_limit_are_left_to_the_paints(
    folder: Callable[[str], Path], make_spec: MakeSpec, limit: int
) -> None:
    go, asked = threading.Event(), list[str]()

    def find(name: str, _type: str) -> AddOn | None:
        asked.append(name)
        go.wait(30)
        return None

    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    config = stingy({"max_prefetches": limit})
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), AddOns("random", find))
    for number in range(5):
        painter.prefetch(make_spec(loras=using((f"lora-{number}", 1))))
    assert painter._num_hints == limit
    go.set()
    painter._hints.shutdown()
    painter.close()
    assert len(asked) == limit


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2])
async def test_add_ons_are_fetched_for_as_many_jobs_at_once_as_the_limit_says(
    folder: Callable[[str], Path], make_spec: MakeSpec, limit: int
) -> None:
    at_once = threading.Semaphore(limit)
    together = threading.Barrier(limit)

    def find(_name: str, _type: str) -> AddOn | None:
        assert at_once.acquire(blocking=False)
        together.wait(30)
        time.sleep(0.05)
        at_once.release()
        return None

    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    config = stingy({"fetch_threads": limit})
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), AddOns("random", find))
    specs = [make_spec(loras=using((f"lora-{number}", 1))) for number in range(4)]
    ended = await asyncio.gather(
        *(painter.paint(number, spec, None) for number, spec in enumerate(specs)),
        return_exceptions=True,
    )
    painter.close()
    assert all(isinstance(one, errors.InvalidRequest) for one in ended)
