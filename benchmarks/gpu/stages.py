"""The stages that need no traffic: the device, forwards, attention, fp8, copies from the host."""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from pydantic import JsonValue
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.forward import SIZES, arguments, build, eager, seconds, sweep
from benchmarks.gpu.course import Figures, Lacking
from benchmarks.gpu.model import Bench

__all__ = ["attention", "compiled", "device", "float8", "forwards", "host_memory"]

_BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
_LAUNCHES = 2000
_MIN_WIDTH = 320  # of layers in fp8; smaller ones are not worth a scale


def device(bench: Bench, figures: Figures) -> None:
    """Find what the device is and what it can do at best."""
    figures.facts["torch"] = torch.__version__
    figures.facts["device"] = str(bench.device)
    if bench.device.type == "cuda":
        found = torch.cuda.get_device_properties(bench.device)
        figures.facts |= {"name": found.name, "memory, GiB": found.total_memory / 2**30}
    side = bench.extent.square
    one, other = torch.randn(2, side, side, device=bench.device, dtype=torch.bfloat16)
    spent = _median(lambda: one @ other, bench.device)
    figures.facts["bfloat16 products, TFLOP/s"] = 2 * side**3 / spent / 1e12
    here = torch.empty(bench.extent.buffer_bytes, dtype=torch.uint8, device=bench.device)
    there = torch.empty_like(here)
    spent = _median(lambda: there.copy_(here), bench.device)
    figures.facts["copy on the device, GB/s read and written"] = 2 * here.nbytes / spent / 1e9
    small = torch.zeros(8, device=bench.device)
    spent = _median(lambda: [small.add_(1) for _ in range(_LAUNCHES)], bench.device)
    figures.facts["a small operation, us"] = spent / _LAUNCHES * 1e6


def forwards(bench: Bench, name: str, figures: Figures) -> None:
    """Measure forwards by row count: eager, and on a GPU as a captured graph."""
    modes = ["off", "graph"] if bench.device.type == "cuda" else ["off"]
    _sweep(bench, name, bench.extent.rows, modes, figures)


def compiled(bench: Bench, name: str, mode: str, figures: Figures) -> None:
    """Measure compiled forwards at few row counts, since each compiles anew."""
    _sweep(bench, name, bench.extent.few_rows, ["off", mode], figures)


def _sweep(
    bench: Bench, name: str, counts: Sequence[int], modes: Sequence[str], figures: Figures
) -> None:
    for timed in sweep(SIZES[name], bench.unet(name), counts, modes):
        row: dict[str, JsonValue] = {"rows": timed.rows}
        for mode in modes:
            told = "eager" if mode == "off" else mode
            row[f"{told}, ms"] = timed.seconds[mode] * 1e3
            row[f"{told}, ms per row"] = timed.seconds[mode] / timed.rows * 1e3
            if mode not in ("off", "graph"):
                row[f"{told}, first, s"] = timed.first_s[mode]
        figures.table.append({**row, "from alone": timed.apart})


@torch.inference_mode()
def attention(bench: Bench, name: str, figures: Figures) -> None:
    """Measure eager forwards with each back end of scaled dot products."""
    unet = bench.unet(name)
    run = eager(unet)
    for rows in bench.extent.few_rows:
        given = arguments(SIZES[name], rows, unet)
        row: dict[str, JsonValue] = {"rows": rows}
        row["as chosen, ms"] = _median(partial(run, given), bench.device) * 1e3
        for backend in _BACKENDS:
            told = backend.name.removesuffix("_ATTENTION").lower()
            try:
                with sdpa_kernel(backend):
                    spent = statistics.median(seconds(run, given, bench.device)[2:])
            except RuntimeError as exc:  # not on this device, or not for these shapes
                row[f"{told}, ms"] = str(exc).splitlines()[0][:60]
            else:
                row[f"{told}, ms"] = spent * 1e3
        figures.table.append(row)


@torch.no_grad()
def float8(bench: Bench, name: str, figures: Figures) -> None:
    """Measure forwards in bfloat16 with linear layers in fp8, and how far they are off."""
    try:
        quantization = importlib.import_module("torchao.quantization")
    except ImportError as exc:
        raise Lacking(f"torchao: {exc}") from exc
    ways = {
        "bfloat16": None,
        "fp8 weights": quantization.Float8WeightOnlyConfig(),
        "fp8 weights and inputs": quantization.Float8DynamicActivationFloat8WeightConfig(),
    }
    wanted: dict[int, torch.Tensor] = {}
    for told, config in ways.items():
        unet = build(SIZES[name], bench.device, torch.bfloat16)
        try:
            if config is not None:
                quantization.quantize_(unet, config, _is_wide)
            figures.table += _quantised(unet, bench, name, told, wanted)
        except (RuntimeError, ValueError, NotImplementedError) as exc:
            figures.table.append({"layers": told, "ms": str(exc).splitlines()[0][:60]})


def _quantised(
    unet: UNet2DConditionModel, bench: Bench, name: str, told: str, wanted: dict[int, torch.Tensor]
) -> Iterator[dict[str, JsonValue]]:
    run = eager(unet)
    for rows in bench.extent.few_rows:
        given = arguments(SIZES[name], rows, unet)
        spent = statistics.median(seconds(run, given, bench.device)[2:])
        made = run(given).float()
        plain = wanted.setdefault(rows, made)
        apart = float((made - plain).abs().max() / plain.abs().max())
        yield {"layers": told, "rows": rows, "ms": spent * 1e3, "from bfloat16": apart}


def _is_wide(module: nn.Module, _name: str) -> bool:
    if not isinstance(module, nn.Linear):
        return False
    sides = (module.in_features, module.out_features)
    return min(sides) >= _MIN_WIDTH and not any(side % 16 for side in sides)


def host_memory(bench: Bench, name: str, figures: Figures) -> None:
    """Measure copies from CPU memory: a block, and all weights of a UNet one after another."""
    block = torch.ones(bench.extent.buffer_bytes, dtype=torch.uint8)
    unet = bench.unet(name)
    weights = [weight.detach().cpu() for weight in unet.parameters()]
    del unet
    for what, tensors in (("a block", [block]), (f"{name}, {len(weights)} tensors", weights)):
        began, size = time.perf_counter(), sum(one.nbytes for one in tensors) / 1e9
        pinned = [one.pin_memory() for one in tensors] if bench.device.type == "cuda" else []
        pinning_s = time.perf_counter() - began
        row: dict[str, JsonValue] = {"what": what, "GB": size, "pinning, s": pinning_s}
        for told, sources in (("pageable", tensors), ("pinned", pinned)):
            spent = _median(_copying(sources, bench.device), bench.device)
            if sources:
                row |= {f"{told}, s": spent, f"{told}, GB/s": size / spent}
        figures.table.append(row)


def _copying(sources: Sequence[torch.Tensor], place: torch.device) -> Callable[[], object]:
    return lambda: [one.to(place, non_blocking=True, copy=True) for one in sources]


def _median(work: Callable[[], object], place: torch.device) -> float:
    """Time some work five times after once; seconds."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        work()
        if place.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
