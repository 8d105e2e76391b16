"""Benchmark 4: forward time against row count, for UNets of real sizes with random weights.

Made for a GPU: what sharing a forward gains there, what compiling gains on top, and how far a row
that shares its forward is from the same row alone, in the precision that is served. Run:
`python -m benchmarks.forward --help`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

_REPEATS = 7
_TOKENS = 77
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


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

Forward = Callable[[dict[str, object]], torch.Tensor]


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


def seconds(forward: Forward, given: dict[str, object], device: torch.device) -> float:
    """Median time of a forward after two that warm up."""
    times = []
    for _ in range(2 + _REPEATS):
        began = time.perf_counter()
        forward(given)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


@torch.inference_mode()
def rows_of(name: str, counts: list[int], device: str, dtype: str, mode: str) -> Iterator[str]:
    """Measure one size and give the rows of the table; stops where memory ends."""
    size, where = SIZES[name], torch.device(device)
    unet = build(size, where, _DTYPES[dtype])

    def eager(given: dict[str, object]) -> torch.Tensor:
        output: torch.Tensor = unet(**given, return_dict=False)[0]
        return output

    ways = [eager] if mode == "off" else [eager, torch.compile(eager, mode=mode, dynamic=False)]
    alone = eager(arguments(size, 1, unet))[0]
    for rows in counts:
        given = arguments(size, rows, unet)
        try:
            times = [seconds(way, given, where) for way in ways]
        except torch.OutOfMemoryError:
            return
        apart = float((eager(given)[0] - alone).abs().max() / alone.abs().max())
        cells = [f"{spent * 1e3:.1f} | {spent * 1e3 / rows:.2f}" for spent in times]
        yield " | ".join(["", name, str(rows), *cells, f"{apart:.1e}", ""]).strip()


def main() -> None:
    """Print the table."""
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["sd15", "xl"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--dtype", choices=_DTYPES, default="bfloat16" if has_gpu else "float32")
    parser.add_argument("--compile", choices=("off", "default", "reduce-overhead"), default="off")
    options = parser.parse_args()
    compiled = "" if options.compile == "off" else f" {options.compile}, ms | per row |"
    print(f"| size | rows | eager, ms | per row |{compiled} from alone |")
    print("|---|" + "---|" * (4 if options.compile == "off" else 6))
    for name in options.sizes:
        args = (options.rows, options.device, options.dtype, options.compile)
        for row in rows_of(name, *args):
            print(row, flush=True)


if __name__ == "__main__":
    main()
