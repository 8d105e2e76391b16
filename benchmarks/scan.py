"""How long `dreamserve models scan` takes for a folder of 1,000 downloads.

The files have the true headers of published layouts, and holes for weights, so that they need
little disk; no two are of one size, as in a folder of different downloads. Run:
`python -m benchmarks.scan --help`.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from serve_app.config import CatalogueConfig
from serve_app.models.scan.memory import Memory
from serve_app.models.scan.scan import scan
from tests import community_files


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "downloads"
        write(folder, options.files)
        memory, config = Memory(Path(root) / "cache"), CatalogueConfig(cache_dir=Path(root))
        taken, cpu = [], []
        for _ in range(options.rounds):
            began, cpu_began = time.perf_counter(), time.process_time()
            rows = scan(folder, {}, memory, config)
            taken.append(time.perf_counter() - began)
            cpu.append(time.process_time() - cpu_began)
        size = sum(file.stat().st_size for file in folder.iterdir())
    verdicts = ", ".join(
        f"{count} {name}" for name, count in Counter(r.verdict for r in rows).items()
    )
    print(f"{options.files} files, {size / 1e12:.2f} TB by their sizes: {verdicts}")
    median = f"{statistics.median(taken):.1f} s, of them {statistics.median(cpu):.1f} s of CPU"
    print(f"{median}; the slowest of {options.rounds} {max(taken):.1f} s")


def write(folder: Path, number: int) -> None:
    """Write files of all layouts in turn, each a tensor larger than the last of its layout."""
    layouts = sorted(community_files.FILES)
    for index in range(number):
        layout = layouts[index % len(layouts)]
        metadata = {"modelspec.title": f"{layout} {index}", "number": "x" * index}
        file = community_files.write_named(folder, layout, metadata=metadata)  # type: ignore[no-untyped-call]
        file.rename(folder / f"{layout} {index}.safetensors")


if __name__ == "__main__":
    main()
