"""What a copy in CPU memory saves: a model loaded from its files, and from the copy, in turn.

The files are in the system's page cache, as they are when a model comes back soon; from a cold disk
or a network share they take longer. Run: `python -m benchmarks.host_copies --help`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.weights.footprint import weight_bytes
from serve_app.pipelines.host import HostCopies
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.checkpoints import RandomUNet, write_random_text2img
from serve_app.types import Kind

_SIZES = (
    RandomUNet(4),
    RandomUNet(4, (64, 128, 256), (False, True, True), sample_size=32),
    RandomUNet(4, (128, 256, 512, 512), (True, True, True, False), sample_size=32),
)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(entry: ModelEntry, config: EngineConfig, rounds: int) -> str:
    """Alternate; a row of the table: GB of weights, medians in seconds, their ratio."""
    host = HostCopies(2 * weight_bytes(entry))
    load_checkpoint(entry, config, host, "copy")
    from_files, from_copy = [], []
    for _ in range(rounds):
        from_files.append(_seconds(lambda: load_checkpoint(entry, config)))
        from_copy.append(_seconds(lambda: load_checkpoint(entry, config, host, "copy")))
    files_s, copy_s = statistics.median(from_files), statistics.median(from_copy)
    size = weight_bytes(entry) / 1e9
    return f"| {size:.2f} | {files_s:.2f} | {copy_s:.2f} | {files_s / copy_s:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = EngineConfig(device=options.device, measure_rows=False)
    print("| weights, GB | from files, s | from the copy, s | ratio |\n|---|---|---|---|")
    for unet in _SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_random_text2img(Path(folder), unet=unet)
            entry = ModelEntry(
                id="random", source=Path(folder), kinds=tuple(Kind), native_size_px=64
            )
            print(compare(entry, config, options.rounds), flush=True)


if __name__ == "__main__":
    main()
