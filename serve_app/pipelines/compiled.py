"""`Compiled`: a denoiser that runs compiled where that is ready, and as it is everywhere else.

No call ever waits for a compiler. A shape that was not met before runs as it is, and is compiled
beside the service, on a thread of its own. What is compiled is a twin of the denoiser, which has
the same weights and which nothing is hooked into or patched while it serves, so that no request's
LoRAs, IP adapter or token merging can end up in a graph. Forwards with the latter two run the
denoiser as it is; LoRAs may come as an argument that twins are prepared for.
"""

import copy
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import FunctionType

import structlog
import torch
from torch import nn

from serve_app.config import EngineConfig
from serve_app.engine.stacking import map_tensors, signature, slice_rows, stack
from serve_app.pipelines.families import PipelineFamily, by_name
from serve_app.pipelines.proxy import Run
from serve_app.pipelines.transfer import beside

__all__ = ["Compiled"]

# While one thread traces, torch takes whatever runs on others for a part of it, and refuses to run
# what is compiled; it runs as it is instead.
torch._dynamo.config.error_on_nested_fx_trace = False

_log = structlog.get_logger()
_numbers = itertools.count()  # of what was compiled in this process
_Shape = tuple[Hashable, int]  # signature of the arguments, and rows


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """A compiled shape. twin: what was compiled, as it is."""

    run: Run
    twin: Run


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """A shape to be compiled. arguments: one row of a call's."""

    shape: _Shape
    arguments: dict[str, object]
    size: int


class Compiled:
    """`run` is for the engine thread; the counts may be read anywhere.

    is_bypassed: something acts on the denoiser that twins do not have.
    forwards: that ran compiled.

    Args:
        module: the denoiser, as it was loaded.
        family: of its pipeline.
        config: of the engine.
        prepare: readies a twin for arguments that the denoiser does not have.
    """

    def __init__(
        self,
        module: nn.Module,
        family: PipelineFamily,
        config: EngineConfig,
        prepare: Callable[[nn.Module], None] = lambda _: None,
    ) -> None:
        self.is_bypassed = False
        self.forwards = 0
        self._sample, self._shared = family.names[0], family.shared
        self._plain = by_name(module, self._sample)
        self._mode, self._module, self._prepare = config.compile, module, prepare
        self.is_on = config.compile != "off"
        self._buckets: tuple[int, ...] = ()
        if self.is_on:
            self._module = _twin(module)  # before anything is patched into the module
            self._buckets = tuple(rows for rows in config.row_buckets if rows <= config.max_rows)
        self._max_shapes, self._max_bytes = config.compiled_shapes, config.lora_batch_bytes
        self._ready: dict[_Shape, _Graph] = {}
        self._met: set[_Shape] = set()
        self._wanted: deque[_Wanted] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_open = False

    @property
    def shapes(self) -> int:
        """Count the shapes that are ready; none once it has stopped."""
        return len(self._ready) if self._is_open else 0

    @property
    def is_busy(self) -> bool:
        """Whether shapes are waiting or being compiled."""
        with self._lock:
            return self._thread is not None

    def start(self) -> None:
        """Begin to compile what was met so far, and whatever will be met."""
        with self._lock:
            self._is_open = True
        self._begin()

    def stop(self) -> None:
        """Compile nothing any more. What is being compiled is not waited for."""
        with self._lock:
            self._is_open = False
            self._wanted.clear()

    def run(self, arguments: dict[str, object]) -> object:
        """Run one forward, compiled if its shape is ready; rows are filled up to a bucket then."""
        shape = self._shape(arguments)
        graph = self._ready.get(shape) if shape else None
        if shape is None or graph is None:
            self._meet(shape, arguments)
            return self._plain(arguments)
        rows, bucket = self._rows_of(arguments), shape[1]
        inputs = self._inputs(arguments, rows, bucket)
        try:
            outputs = graph.run(inputs)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # the engine knows what to do
        except Exception:
            _log.exception("compiled_forward_failed", rows=bucket)
            del self._ready[shape]
            outputs = graph.twin(inputs)
        else:
            self.forwards += 1
        return slice_rows(outputs, 0, rows)

    def knows(self, arguments: dict[str, object]) -> bool:
        """Whether there is a graph for such arguments; else one is compiled beside the service."""
        shape = self._shape(arguments)
        is_ready = shape is not None and shape in self._ready
        if not is_ready:
            self._meet(shape, arguments)
        return is_ready

    def _shape(self, arguments: dict[str, object]) -> _Shape | None:
        """Return the shape that arguments are filled up to; none: it never has a graph."""
        rows = self._rows_of(arguments)
        bucket = next((size for size in self._buckets if size >= rows), None)
        if self.is_bypassed or bucket is None:
            return None
        return signature(arguments, self._shared), bucket

    def _rows_of(self, arguments: dict[str, object]) -> int:
        sample = arguments[self._sample]
        assert isinstance(sample, torch.Tensor), "the sample is a tensor"
        return len(sample)

    def _meet(self, shape: _Shape | None, arguments: dict[str, object]) -> None:
        """Want the kind of a call in all buckets, unless it was met before."""
        free = self._max_shapes - len(self._met)
        if shape is None or shape in self._met or free <= 0:
            return
        shapes = [(shape[0], bucket) for bucket in self._buckets]
        shapes = [one for one in shapes if one not in self._met]
        rows = self._rows(arguments, 1)
        one = {name: map_tensors(value, _own) for name, value in rows.items()}
        sample = one[self._sample]
        assert isinstance(sample, torch.Tensor), "the sample is a tensor"
        for new in shapes[:free]:
            self._met.add(new)
            if 2 * new[1] * _outlined_bytes(one) <= self._max_bytes:
                with self._lock:
                    self._wanted.append(_Wanted(new, one, sample.numel()))
        self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._is_open and self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="compile", daemon=True)
                self._thread.start()

    def _rows(self, arguments: dict[str, object], rows: int) -> dict[str, object]:
        return {
            name: value if name in self._shared else slice_rows(value, 0, rows)
            for name, value in arguments.items()
        }

    def _inputs(self, arguments: dict[str, object], rows: int, bucket: int) -> dict[str, object]:
        """Copy arguments, filled up to a bucket, to the device of the sample.

        Copies lie in memory in the same way whatever they were made from, which graphs rely on.
        """
        sample = arguments[self._sample]
        assert isinstance(sample, torch.Tensor), "the sample is a tensor"
        filled = stack([(beside(sample, arguments), rows)], self._shared, pad_to=bucket)
        return {name: map_tensors(value, _copied) for name, value in filled.items()}

    # From here on everything runs on the thread that compiles.

    def _work(self) -> None:
        with torch.inference_mode():  # as on the engine thread, else the graphs are for others
            while (wanted := self._next()) is not None:
                self._compile(wanted)

    def _next(self) -> _Wanted | None:
        with self._lock:
            if not self._wanted:
                self._thread = None
                return None
            return self._wanted.popleft()

    def _compile(self, wanted: _Wanted) -> None:
        began, bucket = time.monotonic(), wanted.shape[1]
        about = {"rows": bucket, "size": wanted.size}
        try:
            inputs = self._inputs(wanted.arguments, 1, bucket)
            for name, value in wanted.arguments.items():
                if _outlined_bytes(value):
                    inputs[name] = map_tensors(inputs[name], _drawn)
            twin = _twin(self._module)  # of its own, since prepared ones serve one call at a time
            self._prepare(twin)
            function = _function(twin, next(_numbers))
            compiled = torch.compile(function, mode=self._mode, dynamic=False, fullgraph=True)
            outputs = _clones(compiled(inputs))
            if not _agree(outputs, twin(**inputs)):
                raise ArithmeticError("the graph gives other numbers than the module")
        except Exception:  # it runs as it is
            _log.exception("denoiser_not_compiled", **about)
            return
        run_only = torch._dynamo.run(function)
        self._ready[wanted.shape] = _Graph(
            lambda arguments: _clones(run_only(arguments)), lambda arguments: twin(**arguments)
        )
        _log.info(
            "denoiser_compiled",
            **about,
            seconds=round(time.monotonic() - began, 1),
            ready=self.shapes,
            wanted=len(self._wanted),
        )


def _twin(module: nn.Module) -> nn.Module:
    """Copy a module but for its weights."""
    weights = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(weight): weight for weight in weights})


def _function(module: nn.Module, number: int) -> Callable[[dict[str, object]], object]:
    """Return what calls a module, with code of its own.

    torch keeps graphs by code, looks through all of them at each call, and has no more than eight.
    """

    def forward(arguments: dict[str, object]) -> object:
        return module(**arguments)

    assert isinstance(forward, FunctionType), "it was defined above"
    forward.__code__ = forward.__code__.replace(co_name=f"denoiser_{number}")
    return forward


def _is_outline(tensor: torch.Tensor) -> bool:
    """Whether a tensor repeats what it holds, and would take more memory if it were made."""
    return tensor.untyped_storage().nbytes() < tensor.nbytes


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor, which may be a row of many, unless it is an outline."""
    return tensor if _is_outline(tensor) else _copied(tensor)


def _drawn(tensor: torch.Tensor) -> torch.Tensor:
    """Draw numbers, others in each row and column, so that a graph that mixes them is found out."""
    random = torch.Generator(tensor.device).manual_seed(0)
    return torch.randn(tensor.shape, generator=random, device=tensor.device).to(tensor.dtype) / 16


def _outlined_bytes(value: object) -> int:
    """Return what outlines would take."""
    if isinstance(value, torch.Tensor):
        return value.nbytes if _is_outline(value) else 0
    if isinstance(value, Mapping):
        return sum(map(_outlined_bytes, value.values()))
    return sum(map(_outlined_bytes, value)) if isinstance(value, list | tuple) else 0


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _clones(outputs: object) -> object:
    """Copy outputs: a CUDA graph overwrites its own at the next run, and samplers keep some."""
    return map_tensors(outputs, torch.clone)


def _agree(outputs: object, expected: object) -> bool:
    """Whether what a graph gave is what the module gives, but for the order of sums."""
    assert isinstance(outputs, tuple), "denoisers are asked for tuples"
    assert isinstance(expected, tuple), "denoisers are asked for tuples"
    one, other = outputs[0].float(), expected[0].float()
    allowed = torch.finfo(expected[0].dtype).eps ** 0.5 * float(other.abs().max())
    return bool(torch.isfinite(one).all()) and float((one - other).abs().max()) <= allowed
