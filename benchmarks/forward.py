"""Benchmark 4: forward time against row count, for UNets of real sizes with random weights.

Made for a GPU: what sharing a forward gains there, what compiling gains on top, and how far a row
that shares its forward is from the same row alone, in the precision that is served. Run:
`python -m benchmarks.forward --help`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

_REPEATS = 7
_TOKENS = 77
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Size:
    """config: of the UNet. side: of its latents. width: of the text states."""

    config: Mapping[str, object]
    side: int
    width: int
    pooled: int = 0  # width of the pooled text of XL; 0: none


_ALL_CROSS = ("CrossAttnDownBlock2D",) * 3
SIZES = {
    "tiny": Size({"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32}, 8, 32),
    "sd15": Size({"cross_attention_dim": 768}, 64, 768),
    "xl": Size(
        {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", *_ALL_CROSS[:2]),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        128,
        2048,
        pooled=1280,
    ),
}

MODES = ("off", "graph", "default", "reduce-overhead")
Forward = Callable[[dict[str, object]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Timed:
    """A row count. seconds: of a forward, by mode. apart: of a row from the same alone, relative.

    first_s: of the first forward by mode, which compiles or captures.
    """

    rows: int
    seconds: Mapping[str, float]
    first_s: Mapping[str, float]
    apart: float


def build(size: Size, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """Make a UNet with random weights, channels last as the service keeps it."""
    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(**size.config)
    return unet.to(dtype=dtype, memory_format=torch.channels_last).eval()


def arguments(size: Size, rows: int, unet: UNet2DConditionModel) -> dict[str, object]:
    """Draw the inputs of a forward; the first rows are the same for every number of rows."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        made = torch.stack([torch.randn(shape, generator=generator) for _ in range(rows)])
        return made.to(unet.device, unet.dtype)

    generators = generator.get_state()
    sample = draw(4, size.side, size.side)
    generator.set_state(generators)
    states = draw(_TOKENS, size.width)
    given: dict[str, object] = {"sample": sample, "encoder_hidden_states": states}
    given["timestep"] = torch.full((rows,), 500, device=unet.device)
    if size.pooled:
        generator.set_state(generators)
        given["added_cond_kwargs"] = {"text_embeds": draw(size.pooled), "time_ids": draw(6)}
    return given


def seconds(forward: Forward, given: dict[str, object], device: torch.device) -> list[float]:
    """Times of forwards, the first of which warms up."""
    times = []
    for _ in range(2 + _REPEATS):
        began = time.perf_counter()
        forward(given)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times


def eager(unet: UNet2DConditionModel) -> Forward:
    """Return the plain forward of a UNet."""

    def run(given: dict[str, object]) -> torch.Tensor:
        output: torch.Tensor = unet(**given, return_dict=False)[0]
        return output

    return run


def captured(run: Forward) -> Forward:
    """Return a forward that replays a CUDA graph of what it was first called with."""
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}  # by row count

    def replay(given: dict[str, object]) -> torch.Tensor:
        sample = given["sample"]
        assert isinstance(sample, torch.Tensor), "the sample is a tensor"
        if len(sample) not in graphs:
            run(given)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = run(given)
            graphs[len(sample)] = graph, output
        graph, output = graphs[len(sample)]
        graph.replay()
        return output

    return replay


def way(unet: UNet2DConditionModel, mode: str) -> Forward:
    """Return the forward of a UNet in a mode; a compiled one is of one row count."""
    plain = eager(unet)
    if mode == "off":
        return plain
    if mode == "graph":
        return captured(plain)
    return torch.compile(plain, mode=mode, dynamic=False)


@torch.inference_mode()
def sweep(
    size: Size, unet: UNet2DConditionModel, counts: Sequence[int], modes: Sequence[str]
) -> Iterator[Timed]:
    """Measure a UNet by row count; stops where memory ends."""
    ways = {mode: way(unet, mode) for mode in modes}
    plain = eager(unet)
    alone = plain(arguments(size, 1, unet))[0]
    for rows in counts:
        given = arguments(size, rows, unet)
        try:
            times = {mode: seconds(run, given, unet.device) for mode, run in ways.items()}
        except torch.OutOfMemoryError:
            return
        apart = float((plain(given)[0] - alone).abs().max() / alone.abs().max())
        medians = {mode: statistics.median(spent[2:]) for mode, spent in times.items()}
        yield Timed(rows, medians, {mode: spent[0] for mode, spent in times.items()}, apart)


def main() -> None:
    """Print the table."""
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["sd15", "xl"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16" if has_gpu else "float32")
    parser.add_argument("--compile", choices=MODES, default="off")
    options = parser.parse_args()
    modes = list(dict.fromkeys(["off", options.compile]))
    heads = " | ".join(f"{'eager' if mode == 'off' else mode}, ms | per row" for mode in modes)
    print(f"| size | rows | {heads} | from alone |")
    print("|---|---|" + "---|" * (2 * len(modes) + 1))
    for name in options.sizes:
        unet = build(SIZES[name], torch.device(options.device), DTYPES[options.dtype])
        for timed in sweep(SIZES[name], unet, options.rows, modes):
            spent = [ms for mode in modes for ms in _cells(timed, mode)]
            cells = [name, str(timed.rows), *spent, f"{timed.apart:.1e}"]
            print(" | ".join(["", *cells, ""]).strip(), flush=True)


def _cells(timed: Timed, mode: str) -> tuple[str, str]:
    spent_ms = timed.seconds[mode] * 1e3
    return f"{spent_ms:.1f}", f"{spent_ms / timed.rows:.2f}"


if __name__ == "__main__":
    main()
