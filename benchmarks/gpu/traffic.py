"""Mixed requests on the device: parity, speed against stock, the limit, idle times."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.engine import (
    Model,
    compare,
    load,
    of_diffusers,
    one_by_one,
    specs_of,
    weave,
)
from benchmarks.forward import SIZES, sweep
from benchmarks.gpu.course import Figures
from benchmarks.gpu.model import Bench
from benchmarks.gpu.trace import TICK, idle
from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.lane import Lane
from serve_app.engine.request import Request
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint

__all__ = ["Traffic", "parity"]

_PARITY = {"full": (8, (8, 12), 128), "tiny": (3, (2, 2), 64)}
# Stock is wrong in the rest (`docs/samplers.md`).
_WHOLE = {"strength": 1.0}
_OF_NOISES = "PNDMScheduler"  # for models that predict noise; the demo predicts velocities
_TRACED_STEPS = 4


def parity(bench: Bench, figures: Figures) -> None:
    """Compare the engine with stock pipelines on the device and the CPU, in grey levels.

    In float32 without TF32, and in the number type that is served; all requests share forwards.
    """
    is_tiny = bench.extent.unets == ("tiny",)
    requests, steps, side = _PARITY["tiny" if is_tiny else "full"]
    model = Model(bench.demo, (side,), steps, requests)
    specs = [
        spec.model_copy(update=_WHOLE) for spec in specs_of(model) if spec.scheduler != _OF_NOISES
    ]
    on_cpu = load(model, EngineConfig(device="cpu"), "float32")
    with _exact(), torch.inference_mode():
        truth = _pixels(one_by_one(on_cpu, specs, of_diffusers(on_cpu)))
        for dtype in dict.fromkeys(("float32", bench.dtype)):
            checkpoint = load(model, bench.config, dtype)
            make = of_diffusers(checkpoint)
            alone = _pixels(one_by_one(checkpoint, specs, make))
            engine = Engine(bench.config, checkpoint.variants.activate)
            with contextlib.closing(engine):
                woven = _pixels([one.image for one in weave(checkpoint, engine, specs)])
            for what, one, other in (
                ("engine from stock, both here", woven, alone),
                ("stock here from stock on the CPU in float32", alone, truth),
                ("engine here from stock on the CPU in float32", woven, truth),
            ):
                figures.table.append({"numbers": dtype, "what": what, **_apart(one, other)})


class Traffic:
    """The mix of requests to one model, which is loaded once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Return the model with random weights; it takes seconds the first time."""
        return load(self._bench.traffic, self._bench.config, self._bench.dtype)

    def compare(self, figures: Figures) -> None:
        """Measure the engine against the stock pipelines of diffusers, and against its limit."""
        bench, checkpoint = self._bench, self.checkpoint
        specs, make = specs_of(bench.traffic), of_diffusers(checkpoint)
        for spec in specs:
            make(spec)  # some classes take a second to construct
        ways = {"sequential": partial(one_by_one, checkpoint, specs, make)}
        found = compare(checkpoint, bench.traffic, bench.extent.rounds, bench.config, ways)
        woven_s = found.seconds("weave")
        figures.facts |= {
            "requests": found.requests,
            "one after another, stock, pictures per s": len(specs) / found.seconds("sequential"),
            "engine, pictures per s": len(specs) / woven_s,
            "times stock": found.ratio("weave"),
            "rows per forward": found.rows,
            "row steps": found.row_steps,
            "row caps": dict(found.caps),
        }
        best = self._best_row_s()
        limit_s = found.row_steps * best
        figures.facts |= {
            "best forward, ms per row": best * 1e3,
            "limit by forwards, pictures per s": len(specs) / limit_s,
            "share of the limit": limit_s / woven_s,
        }

    def _best_row_s(self) -> float:
        """Return the least time of a row in eager forwards of the model itself."""
        extent, unet = self._bench.extent, self.checkpoint.base.unet
        size = SIZES[extent.unets[0]]
        return min(one.seconds["off"] / one.rows for one in sweep(size, unet, extent.rows, ["off"]))

    def idle(self, figures: Figures) -> None:
        """Trace short requests, and tell what the device had nothing to do for, per forward."""
        checkpoint, plain = self.checkpoint, self.checkpoint.denoiser
        traced = replace(plain, run=_named(plain.run))
        steps = {"steps": _TRACED_STEPS, "strength": 1.0}
        specs = [spec.model_copy(update=steps) for spec in specs_of(self._bench.traffic)]
        config = self._bench.config.model_copy(update={"measure_rows": False})
        engine = Engine(config, checkpoint.variants.activate)
        with contextlib.closing(engine), _instead(checkpoint, traced):
            weave(checkpoint, engine, specs)
            began, before = time.perf_counter(), engine.snapshot().forwards
            weave(checkpoint, engine, specs)
            _finish(self._bench.device)
            spent_s = time.perf_counter() - began
            forwards = engine.snapshot().forwards - before
            events = _traced(engine, self._bench.device, lambda: weave(checkpoint, engine, specs))
        found = idle(events)
        figures.facts |= {
            "forwards": found.ticks,
            "operations per forward": found.operations,
            "busy, ms per forward": found.busy / 1e3,
            "idle inside a forward, ms": found.inside / 1e3,
            "idle between forwards, ms": found.between / 1e3,
            "longest gap, ms": found.longest / 1e3,
            "busy, traced": found.busy_share,
            "from forward to forward, not traced, ms": spent_s / forwards * 1e3,
            "busy, not traced": found.busy / 1e6 / (spent_s / forwards),
        }


def _named(run: Callable[[dict[str, object]], object]) -> Callable[[dict[str, object]], object]:
    def run_named(arguments: dict[str, object]) -> object:
        with record_function(TICK):
            return run(arguments)

    return run_named


@contextlib.contextmanager
def _instead(checkpoint: Checkpoint, lane: Lane) -> Iterator[None]:
    plain = checkpoint.denoiser
    checkpoint.denoiser = lane
    try:
        yield
    finally:
        checkpoint.denoiser = plain


def _traced(
    engine: Engine, device: torch.device, work: Callable[[], object]
) -> list[dict[str, object]]:
    """Trace some work of an engine, whose thread has to start and stop the profiler itself."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities)
    _on_thread(engine, profiler.start)
    work()
    _finish(device)
    _on_thread(engine, profiler.stop)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, object]] = json.loads(path.read_text())["traceEvents"]
    return events


def _on_thread(engine: Engine, work: Callable[[], object]) -> None:
    engine.submit(Request(work, variant=Variant())).result()


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Let float32 be float32: without TF32 in products and convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _pixels(pictures: Sequence[torch.Tensor]) -> np.ndarray:
    """Return grey levels, (N, 3, H, W)."""
    stacked = torch.stack([picture.float().cpu() for picture in pictures])
    return (stacked * 255).round().numpy()


def _apart(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    apart = np.abs(one - other)
    return {"mean, levels": float(apart.mean()), "largest": float(apart.max())}
