"""What reading a picture in a worker process costs over reading it in the process itself.

    python -m benchmarks.isolation [--rounds 200] [--side 512]

Alternates both with the same file, an init picture without a mask that is wanted at its own size.
Prints medians of the wall clock and means of CPU time, in milliseconds, and what workers take to
start.
"""

import argparse
import asyncio
import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import psutil
from PIL import Image

from serve_app.config import ImagesConfig
from serve_app.images.isolation import Isolation
from serve_app.images.prepare import prepare
from serve_app.types import PreparedImages, Size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    args = parser.parse_args()
    asyncio.run(_run(args.rounds, args.side))


async def _run(rounds: int, side: int) -> None:
    isolation = Isolation(ImagesConfig())
    begun = time.perf_counter()
    await isolation.start()
    workers = psutil.Process().children()
    memory = max(worker.memory_info().rss for worker in workers) / 1024**2
    print(
        f"{len(workers)} workers after {time.perf_counter() - begun:.2f} s, {memory:.0f} MiB each"
    )
    size = Size(height=side, width=side)
    for form in ("PNG", "JPEG", "WEBP"):
        work = partial(prepare, _file(form, side), None, size, ImagesConfig())
        inside, outside = await _alternate(isolation, work, rounds)
        print(f"{form} of {side} px: in process {inside}, in a worker {outside}")
    await isolation.aclose()


class _Clock:
    """Times of one way: wall clock per round, and the CPU time of all processes."""

    def __init__(self) -> None:
        self.walls: list[float] = []
        self.cpu_s = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        cpu_s, begun = _cpu_s(), time.perf_counter()
        yield
        self.walls.append(time.perf_counter() - begun)
        self.cpu_s += _cpu_s() - cpu_s

    def __str__(self) -> str:
        wall_ms = statistics.median(self.walls) * 1000
        return f"{wall_ms:.1f} ({self.cpu_s / len(self.walls) * 1000:.1f})"


async def _alternate(
    isolation: Isolation, work: Callable[[], PreparedImages], rounds: int
) -> tuple[_Clock, _Clock]:
    inside, outside = _Clock(), _Clock()
    for _ in range(rounds):
        with inside.measure():
            work()
        with outside.measure():
            await isolation.run(work)
    return inside, outside


def _cpu_s() -> float:
    processes = [psutil.Process(), *psutil.Process().children()]
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def _file(form: str, side: int) -> bytes:
    """A smooth picture with a little noise, which no format finds easy or hard."""
    rows, columns = np.mgrid[0:side, 0:side] * (255 / side)
    pixels = np.stack([rows, columns, (rows + columns) / 2], axis=-1)
    pixels += np.random.default_rng(0).normal(0, 3, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
