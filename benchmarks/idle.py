"""What the service takes while nobody asks for anything: `python -m benchmarks.idle`.

Start to first ready answer, then CPU by process over a minute, and the memory of all of them.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks.fake_service import part_name, serving
from serve_app.cli.demo import free_port


def main() -> None:
    """Measure and print."""
    options = _options()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with _started(options.config, options.log) as (process, ready_s):
        start_s = _cpu_s(process)
        time.sleep(options.settle)
        before, begun = _cpu_s(process), time.monotonic()
        time.sleep(options.seconds)
        after, seconds = _cpu_s(process), time.monotonic() - begun
        memory = _bytes(process)
    shares = {name: (after[name] - before.get(name, 0.0)) / seconds for name in after}
    print(f"ready after {ready_s:.1f} s\n")
    print("| process | number | CPU s to start | % of a core at rest | MB |\n|---|---|---|---|---|")
    for name in sorted(memory, key=lambda name: -shares.get(name, 0.0)):
        number, size = memory[name]
        used = f"{start_s.get(name, 0.0):.1f} | {100 * shares.get(name, 0.0):.1f}"
        print(f"| {name} | {number} | {used} | {size / 1e6:.0f} |")
    number, size = (sum(column) for column in zip(*memory.values(), strict=True))
    used = f"{sum(start_s.values()):.1f} | {100 * sum(shares.values()):.1f}"
    print(f"| all | {number} | {used} | {size / 1e6:.0f} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/dev.yaml"))
    parser.add_argument("--settle", type=float, default=60.0, help="seconds before measuring")
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring")
    parser.add_argument("--log", type=Path, default=Path("out/idle.log"), help="of the service")
    return parser.parse_args()


@contextlib.contextmanager
def _started(config: Path, log_path: Path) -> Iterator[tuple[psutil.Process, float]]:
    """Start the service with data of its own; yield it and the seconds until it was ready."""
    with tempfile.TemporaryDirectory() as folder, log_path.open("ab") as log:
        os.environ["DREAMSERVE_DATA_DIR"] = folder
        begun = time.monotonic()
        with serving(config, free_port(), log) as process:
            yield process, time.monotonic() - begun


def _family(process: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            yield part_name(one) or f"Ray: {_title(one)}", one


def _title(process: psutil.Process) -> str:
    words = process.cmdline()
    names = [Path(word).name for word in words[:4] if not word.startswith("-")]
    return next((name for name in names if "python" not in name), process.name())


def _cpu_s(process: psutil.Process) -> Mapping[str, float]:
    used: dict[str, float] = defaultdict(float)
    for name, one in _family(process):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            used[name] += times.user + times.system
    return used


def _bytes(process: psutil.Process) -> Mapping[str, tuple[int, int]]:
    """Count processes and their bytes by name; what is shared counts in parts (PSS)."""
    used: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, one in _family(process):
        with contextlib.suppress(psutil.Error):
            number, size = used[name]
            used[name] = number + 1, size + one.memory_full_info().pss
    return used


if __name__ == "__main__":
    main()
