"""How long a full-size model takes to load, against reading its file: a folder and a single file.

Stable Diffusion 1.5 in half precision, random weights, about 2 GB, of the published shapes: what
loads here loads as downloaded files do. Cold: the file's pages are dropped from the system's cache
before; warm: they are there. Run: `python -m benchmarks.cold_load --help`.
"""

import argparse
import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.bases.base import BASES
from serve_app.models.weights.resolve import resolve
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.ldm_names import original
from serve_app.types import Kind


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; none: temporary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(compare(Path(folder), options.rounds, options.device))


def compare(root: Path, rounds: int, device: str) -> str:
    """Write both forms, load them in turn, and return the table: medians in seconds."""
    folder, file = write(root)
    catalogue = CatalogueConfig(cache_dir=root / "cache")
    config = EngineConfig(device=device, measure_rows=False)

    def load(source: Path) -> None:
        entry = ModelEntry(id="sd15", source=source, kinds=(Kind.TEXT2IMG,), dtype="float16")
        load_checkpoint(resolve(entry, catalogue), config)

    works: dict[str, tuple[Path, Callable[[], object]]] = {
        "reading the single file": (file, lambda: read(file)),
        "single file": (file, lambda: load(file)),
        "folder": (folder, lambda: load(folder)),
    }
    taken: dict[tuple[str, bool], list[float]] = {}
    with watching() as most:
        load(file)  # imports and caches of the libraries
        for _ in range(rounds):
            for is_cold in (True, False):
                for name, (path, work) in works.items():
                    gc.collect()
                    if is_cold:
                        drop_pages(path)
                    taken.setdefault((name, is_cold), []).append(seconds(work))
    lines = ["| | cold, s | ratio | warm, s | ratio |", "|---|---|---|---|---|"]
    base = [statistics.median(taken["reading the single file", cold]) for cold in (True, False)]
    for name in works:
        told = [statistics.median(taken[name, cold]) for cold in (True, False)]
        cells = (f"{own:.2f} | {own / other:.2f}" for own, other in zip(told, base, strict=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    size = file.stat().st_size
    grown = f"Memory of the process grew by at most {most[0] / 1e9:.2f} GB, without mapped files."
    lines.append(f"\nFile: {size / 1e9:.2f} GB. {grown}")
    return "\n".join(lines)


def write(root: Path) -> tuple[Path, Path]:
    """Write random weights of the published shapes as a folder and as a single file."""
    base, folder, file = BASES["sd1"], root / "folder", root / "sd15.safetensors"
    settings = base.write(root / "settings")
    text = transformers.CLIPTextConfig(**base.parts["text_encoder"])
    with torch.random.fork_rng():
        pipeline = StableDiffusionPipeline(
            unet=UNet2DConditionModel.from_config(dict(base.parts["unet"])),
            vae=AutoencoderKL.from_config(dict(base.parts["vae"])),
            text_encoder=transformers.CLIPTextModel(text),
            tokenizer=transformers.CLIPTokenizer.from_pretrained(settings / "tokenizer"),
            scheduler=DDIMScheduler.from_config(dict(base.parts["scheduler"])),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).to(torch.float16)
    pipeline.save_pretrained(folder)
    save_file({name: weight.contiguous() for name, weight in original(pipeline)}, file)
    return folder, file


def read(file: Path) -> None:
    """Read all tensors into memory of their own, as fast as the library does."""
    for tensor in load_file(file).values():
        tensor.clone()


def drop_pages(path: Path) -> None:
    """Drop the files from the page cache; the system may keep some."""
    for file in [path] if path.is_file() else path.rglob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextmanager
def watching() -> Iterator[list[int]]:
    """Watch the memory of its own that the process has; gives by how many bytes it grew at most."""
    gc.collect()
    most, ended, before = [0], threading.Event(), anonymous()

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], anonymous() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def anonymous() -> int:
    """Return the bytes of memory that belong to no file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
