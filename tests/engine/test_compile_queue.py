"""What is compiled when, with a compiler that waits to be let go and changes nothing."""

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from serve_app.config import EngineConfig
from serve_app.pipelines.compiled import Compiled
from serve_app.pipelines.families import FAMILIES


class Toy(nn.Module):
    """Doubles its sample, and writes down how many rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.rows: list[int] = []

    def forward(self, sample: torch.Tensor) -> tuple[torch.Tensor]:
        self.rows.append(len(sample))
        return (sample * self.scale,)


class Compiler:
    """Gives back what it is given, when it may; what that gives is `spoilt`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.num_made = 0
        self.spoilt: Callable[[object], object] = lambda outputs: outputs

    def compile(
        self, function: Callable[[dict[str, object]], object], **_: object
    ) -> Callable[[dict[str, object]], object]:
        assert self.go.wait(10)
        self.num_made += 1
        return lambda arguments: self.spoilt(function(arguments))


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made.compile)
    monkeypatch.setattr(
        torch._dynamo, "run", lambda function: lambda given: made.spoilt(function(given))
    )
    yield made
    made.go.set()


@pytest.fixture
def toy() -> Toy:
    return Toy()


def compiled(toy: Toy, **settings: object) -> Compiled:
    values = {"device": "cpu", "compile": "default", "row_buckets": (2, 4, 8), "max_rows": 4}
    made = Compiled(toy, FAMILIES["StableDiffusion"], EngineConfig(**values | settings))
    made.start()
    return made


def run(denoiser: Compiled, rows: int, width: int = 3) -> None:
    """Run a forward, which gives what it should however it runs."""
    sample = torch.arange(float(rows * width)).view(rows, width)
    (output,) = denoiser.run({"sample": sample})  # type: ignore[misc]
    assert torch.equal(output, 2 * sample)


def settle(denoiser: Compiled) -> None:
    while denoiser.is_busy:
        threading.Event().wait(0.001)


def test_call_waits_for_no_compiler_and_the_next_runs_in_a_bucket(
    compiler: Compiler, toy: Toy
) -> None:
    denoiser = compiled(toy)
    compiler.go.clear()
    run(denoiser, 3)
    assert (denoiser.is_busy, denoiser.shapes, denoiser.forwards) == (True, 0, 0)
    compiler.go.set()
    settle(denoiser)
    assert (denoiser.shapes, compiler.num_made) == (2, 2)  # of 2 and 4 rows; 8 are never run
    toy.rows.clear()
    for rows in (3, 4, 2, 1):
        run(denoiser, rows)
    assert (denoiser.forwards, toy.rows) == (4, [])  # it was its twin that ran


def test_forward_of_more_rows_than_any_bucket_runs_as_it_is(compiler: Compiler, toy: Toy) -> None:
    denoiser = compiled(toy)
    for _ in range(2):
        run(denoiser, 5)
        settle(denoiser)
    assert (denoiser.forwards, compiler.num_made, toy.rows) == (0, 0, [5, 5])


def test_shapes_are_bounded_and_each_is_compiled_once(compiler: Compiler, toy: Toy) -> None:
    denoiser = compiled(toy, compiled_shapes=3)
    for width in (3, 3, 4, 5):
        run(denoiser, 1, width)
        settle(denoiser)
    assert (denoiser.shapes, compiler.num_made) == (3, 3)


def test_what_the_twin_does_not_have_runs_as_it_is(compiler: Compiler, toy: Toy) -> None:
    denoiser = compiled(toy)
    run(denoiser, 1)
    settle(denoiser)
    denoiser.is_bypassed = True
    run(denoiser, 1)
    assert (denoiser.forwards, toy.rows) == (0, [1, 1])


@pytest.mark.parametrize("harm", [1e-2, float("nan")])
def test_graph_that_gives_other_numbers_is_not_used(
    compiler: Compiler, toy: Toy, harm: float
) -> None:
    compiler.spoilt = lambda outputs: (outputs[0] + harm,)  # type: ignore[index]
    denoiser = compiled(toy)
    for _ in range(2):
        run(denoiser, 2)
        settle(denoiser)
    assert (denoiser.shapes, denoiser.forwards, compiler.num_made) == (0, 0, 2)


def test_graph_that_fails_in_service_is_given_up(compiler: Compiler, toy: Toy) -> None:
    denoiser = compiled(toy)
    run(denoiser, 2)
    settle(denoiser)

    def fail(_outputs: object) -> object:
        raise ValueError("a guard")

    compiler.spoilt = fail
    for _ in range(2):
        run(denoiser, 2)
    assert (denoiser.shapes, denoiser.forwards) == (1, 0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_failure_of_the_device_is_the_engines(
    compiler: Compiler, toy: Toy, error: type[Exception]
) -> None:
    denoiser = compiled(toy)
    run(denoiser, 2)
    settle(denoiser)

    def fail(_outputs: object) -> object:
        raise error("the device")

    compiler.spoilt = fail
    with pytest.raises(error):
        run(denoiser, 2)
    assert denoiser.shapes == 2


def test_nothing_is_compiled_before_the_start_and_after_the_end(
    compiler: Compiler, toy: Toy
) -> None:
    denoiser = compiled(toy)
    denoiser.stop()
    run(denoiser, 2)
    assert (denoiser.is_busy, denoiser.shapes, compiler.num_made) == (False, 0, 0)
    denoiser.start()
    settle(denoiser)
    assert (denoiser.shapes, compiler.num_made) == (2, 2)
    denoiser.stop()
    assert denoiser.shapes == 0


def test_denoiser_that_is_not_to_be_compiled_has_no_twin(compiler: Compiler, toy: Toy) -> None:
    denoiser = compiled(toy, compile="off")
    run(denoiser, 2)
    assert (denoiser.is_busy, toy.rows, denoiser._module) == (False, [2], toy)


def test_room_for_loras_is_no_limit_of_what_has_none(compiler: Compiler, toy: Toy) -> None:
    """The setting is about LoRAs; without any a forward is compiled whatever its arguments take."""
    denoiser = compiled(toy, lora_batch_bytes=1)
    run(denoiser, 2)
    settle(denoiser)
    run(denoiser, 2)
    assert denoiser.forwards == 1


@pytest.mark.parametrize("mixes", [False, True])
def test_graph_that_takes_one_row_for_another_is_found_out(
    compiler: Compiler, toy: Toy, mixes: bool
) -> None:
    """Of the sample all rows are one that was met; what is outlined differs."""
    toy.__dict__["forward"] = lambda sample, row_pairs: (sample + row_pairs[0],)
    if mixes:
        compiler.spoilt = lambda outputs: (outputs[0].flip(0),)  # type: ignore[index]
    denoiser = compiled(toy)
    outline = torch.ones(1).expand(2, 3)
    arguments: dict[str, object] = {"sample": torch.ones(2, 3), "row_pairs": (outline,)}
    denoiser.knows(arguments)
    settle(denoiser)
    assert denoiser.knows(arguments) is not mixes


def test_what_waits_for_the_compiler_takes_no_more_memory_than_it_was_given(toy: Toy) -> None:
    """Outlines of LoRAs take none, while the matrices of a row may be hundreds of MB."""
    denoiser = compiled(toy)
    denoiser.stop()
    outline = torch.ones(1).expand(4, 1000, 1000)
    assert not denoiser.knows({"sample": torch.ones(4, 3), "row_pairs": (outline,)})
    (wanted, *_) = denoiser._wanted
    (kept,) = wanted.arguments["row_pairs"]  # type: ignore[misc]
    sample = wanted.arguments["sample"]
    assert isinstance(sample, torch.Tensor)
    takes = [one.untyped_storage().nbytes() for one in (kept, sample)]
    assert takes == [4, 12], "of the other rows nothing is kept either"
