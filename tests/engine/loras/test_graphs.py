"""LoRAs in compiled forwards: what is painted, and that no set needs a graph of its own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.config import EngineConfig
from serve_app.models import AddOn
from serve_app.types import GenerationSpec, LoraUse
from tests.engine.compiler import Compiler
from tests.engine.lora_files import KERNEL, LAYERS, MATRICES, Made, kohya, make, peft, save
from tests.engine.weaving import CPU, TOLERANCE, Weaver, difference, truth

MakeSpec = Callable[..., GenerationSpec]
COMPILED = CPU.model_copy(
    update={"compile": "default", "max_rows": 8, "row_buckets": (8,), "lora_bytes": 2**28}
)
ATTENTION = {"unet": tuple(name for name in LAYERS["unet"] if ".attn" in name)}
OTHERS = {"unet": tuple(name for name in MATRICES["unet"] if ".attn" not in name)}
MADE = {  # what each LoRA acts on, and its ranks
    "matrices": (MATRICES, (4, 2)),
    "attention": (ATTENTION, (8,)),
    "others": (OTHERS, (3,)),
    "large": (MATRICES, (20,)),
    "dora": (MATRICES, (4,)),
    "kernel": ({"unet": (KERNEL,)}, (4,)),
    "text": ({"text_encoder": LAYERS["text_encoder"]}, (4,)),
}


@pytest.fixture(scope="module")
def base(folder: Callable[[str], Path]) -> DiffusionPipeline:
    source = folder("attention")
    return diffusers.StableDiffusionPipeline.from_pretrained(source, safety_checker=None)


@pytest.fixture(scope="module")
def made(base: DiffusionPipeline) -> dict[str, Made]:
    return {
        name: make(base, layers, ranks, seed)
        for seed, (name, (layers, ranks)) in enumerate(MADE.items())
    }


@pytest.fixture(scope="module")
def add_ons(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> list[AddOn]:
    root = tmp_path_factory.mktemp("loras")
    for name, own in made.items():
        tensors = peft(own, is_dora=True) if name == "dora" else kohya(own)
        save(tensors, root / f"{name}.safetensors")
    return [AddOn(id=name, type="lora", source=root / f"{name}.safetensors") for name in made]


@pytest.fixture
def open_weaver(
    folder: Callable[[str], Path], add_ons: list[AddOn], compiler: Compiler
) -> Iterator[Callable[..., Weaver]]:
    """Open weavers that compile."""
    weavers: list[Weaver] = []

    def open_one(**changes: object) -> Weaver:
        config: EngineConfig = COMPILED.model_copy(update=changes)
        weavers.append(Weaver(folder("attention"), add_ons, config))
        weavers[-1].checkpoint.compiled.start()
        return weavers[-1]

    yield open_one
    for weaver in weavers:
        weaver.checkpoint.compiled.stop()
        weaver.engine.close()


def using(**strengths: float) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(id=name, strength=strength) for name, strength in strengths.items())


def wait(weaver: Weaver) -> int:
    """Wait until nothing is left to compile, and count the graphs."""
    deadline = time.monotonic() + 240
    while weaver.checkpoint.compiled.is_busy and time.monotonic() < deadline:
        time.sleep(0.02)
    return weaver.checkpoint.compiled.shapes


def paint(weaver: Weaver, *specs: GenerationSpec) -> tuple[list[torch.Tensor], int, int]:
    """Paint together; pictures, forwards, and how many of these ran compiled."""
    forwards, compiled = weaver.engine.snapshot().forwards, weaver.checkpoint.compiled.forwards
    pictures = weaver.paint(*specs)
    return (
        pictures,
        weaver.engine.snapshot().forwards - forwards,
        weaver.checkpoint.compiled.forwards - compiled,
    )


SETS = [
    using(),
    using(matrices=1),
    using(attention=0.5, others=0.3),
    using(dora=1, attention=0.4),
    using(large=-0.7),
    using(matrices=-0.5, text=0.4),
]


@pytest.mark.slow
def test_sets_in_one_graph_equal_stock_each(
    open_weaver: Callable[..., Weaver],
    compiler: Compiler,
    base: DiffusionPipeline,
    made: dict[str, Made],
    make_spec: MakeSpec,
) -> None:
    weaver = open_weaver()
    specs = [
        make_spec(loras=uses, steps=3 + number % 2, seed=number) for number, uses in enumerate(SETS)
    ]
    expected = [truth(base, made, spec) for spec in specs]
    for group in (slice(0, 3), slice(3, 6), slice(1, 4)):
        is_compiled = False
        for _ in range(8):  # who starts a forward before others makes shapes of its own
            pictures, forwards, compiled = paint(weaver, *specs[group])
            for picture, wanted in zip(pictures, expected[group], strict=True):
                assert difference(picture, wanted) <= TOLERANCE
            is_compiled = compiled == forwards
            if is_compiled:
                break
            wait(weaver)
        assert is_compiled
    assert set(compiler.threads) == {"compile"}


@pytest.mark.slow
def test_set_that_was_never_met_runs_in_the_graph_of_others(
    open_weaver: Callable[..., Weaver],
    base: DiffusionPipeline,
    made: dict[str, Made],
    make_spec: MakeSpec,
) -> None:
    weaver = open_weaver()
    first, second = make_spec(loras=using(attention=1)), make_spec(loras=using(attention=-0.6))
    paint(weaver, first)
    graphs = wait(weaver)
    for spec in (second, first, make_spec(loras=using(attention=0.2), seed=3), second):
        (picture,), forwards, compiled = paint(weaver, spec)
        assert compiled == forwards > 0
        assert difference(picture, truth(base, made, spec)) <= TOLERANCE
    assert wait(weaver) == graphs


@pytest.mark.slow
def test_kernels_run_as_they_are_and_leave_the_next_ones_alone(
    open_weaver: Callable[..., Weaver],
    base: DiffusionPipeline,
    made: dict[str, Made],
    make_spec: MakeSpec,
) -> None:
    weaver = open_weaver()
    mixed = [make_spec(loras=using(kernel=1)), make_spec(loras=using(attention=1), seed=1)]
    paint(weaver, make_spec())
    paint(weaver, mixed[1])
    wait(weaver)
    (alone,), forwards, compiled = paint(weaver, mixed[0])
    assert (forwards > 0, compiled) == (True, 0)
    together, _, _ = paint(weaver, *mixed)
    for spec, picture in zip([mixed[0], *mixed], [alone, *together], strict=True):
        assert difference(picture, truth(base, made, spec)) <= TOLERANCE
    for spec in (mixed[1], make_spec()):
        (picture,), forwards, compiled = paint(weaver, spec)
        assert compiled == forwards
        assert difference(picture, truth(base, made, spec)) <= TOLERANCE


@pytest.mark.slow
def test_graph_that_fails_in_service_costs_no_picture(
    open_weaver: Callable[..., Weaver],
    compiler: Compiler,
    base: DiffusionPipeline,
    made: dict[str, Made],
    make_spec: MakeSpec,
) -> None:
    weaver = open_weaver()
    spec = make_spec(loras=using(matrices=1))
    paint(weaver, spec)
    graphs = wait(weaver)
    compiler.fault = lambda outputs: outputs[5]  # type: ignore[index]
    (picture,), _, compiled = paint(weaver, spec)
    assert (compiled, weaver.checkpoint.compiled.shapes) == (0, graphs - 1)
    assert difference(picture, truth(base, made, spec)) <= TOLERANCE


@pytest.mark.slow
def test_matrices_without_room_have_no_graph(
    open_weaver: Callable[..., Weaver],
    base: DiffusionPipeline,
    made: dict[str, Made],
    make_spec: MakeSpec,
) -> None:
    weaver = open_weaver(lora_batch_bytes=1)
    spec = make_spec(loras=using(attention=1))
    paint(weaver, spec)
    assert wait(weaver) == 0
    (picture,), _, compiled = paint(weaver, spec)
    assert compiled == 0
    assert difference(picture, truth(base, made, spec)) <= TOLERANCE
