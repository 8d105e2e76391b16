"""What a GPU does with the engine: `python -m benchmarks.gpu --help`.

Each stage has a budget and leaves a JSON file when it ends; one that fails is told, and the next
begins. The whole takes ten minutes at most. `--device cpu --size tiny` shows that it runs.
"""

import argparse
import faulthandler
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import stages
from benchmarks.gpu.course import Course, Stage, markdown
from benchmarks.gpu.model import Bench, bench_of
from benchmarks.gpu.traffic import Traffic, parity
from serve_app.config import LoggingConfig
from serve_app.telemetry import logging

_GRACE_S = 15  # after the limit, for what no alarm can interrupt


def course_of(bench: Bench) -> list[Stage]:
    """List the stages, what matters most first; budgets in seconds are for the full size."""
    names, traffic = bench.extent.unets, Traffic(bench)
    first, last = names[0], names[-1]
    found = [
        Stage("device", 15, partial(stages.device, bench)),
        Stage("parity", 60, partial(parity, bench)),
        Stage("mixed requests", 130, traffic.compare),
        Stage("idle device", 50, traffic.idle),
        *(Stage(f"forwards {name}", 45, partial(stages.forwards, bench, name)) for name in names),
        Stage(f"attention {last}", 30, partial(stages.attention, bench, last)),
        Stage("host memory", 30, partial(stages.host_memory, bench, first)),
        Stage(f"fp8 {last}", 40, partial(stages.float8, bench, last)),
    ]
    if bench.device.type == "cuda":
        found += [
            Stage(f"{mode} {name}", 100, partial(stages.compiled, bench, name, mode))
            for name in names
            for mode in ("default", "reduce-overhead")
        ]
    return found


def main() -> None:
    """Run the stages, then print all that was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--device", default="auto", help="cuda, cpu; auto: a GPU where there is one"
    )
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--dtype", default="auto", help="that is served: float16, bfloat16")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="folder for JSON files")
    parser.add_argument("--limit-s", type=float, default=570, help="of the whole, imports left out")
    parser.add_argument("--only", nargs="+", default=[], help="stages by the begin of their names")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.limit_s + _GRACE_S, exit=True)
    logging.configure(LoggingConfig(level="WARNING"))
    torch.set_num_threads(1)
    chosen = [
        stage
        for stage in course_of(bench_of(options.device, options.size, options.dtype))
        if not options.only or stage.name.startswith(tuple(options.only))
    ]
    pages = []
    for told in Course(options.out, options.limit_s).run(chosen):
        print(f"{told.stage}: {told.outcome} {told.why} ({told.seconds} s)", file=sys.stderr)
        pages.append("\n".join(markdown(told)))
    print("\n\n".join(pages))
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
