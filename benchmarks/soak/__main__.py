"""How ordinary calls fare beside hostile ones: `python -m benchmarks.soak --help`.

A quarter of the time passes in quiet, the rest under attack, with the same ordinary calls at the
same pace.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.soak.attack import Answers, hostile
from benchmarks.soak.installation import Installation, installation
from benchmarks.soak.ordinary import Ordinary, Times
from benchmarks.soak.report import markdown

_QUIET = 0.25  # of the duration
_LOOK_S = 1.0


def main() -> None:
    """Start a service, measure in quiet and under attack, print, stop it."""
    options = _options()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    with installation(options.log) as installed, hostile(installed, options.seed) as attack:
        before = installed.look()
        quiet, attacked = asyncio.run(_soak(installed, attack, options.seconds))
        answers: Answers = attack.recv()
        gone = before - installed.look()
    print(markdown(quiet, attacked, answers))
    print(f"\nProcesses that ended: {sorted(name for name, _ in gone) or 'none'} of {len(before)}.")
    print("\n| process | most resident MB |\n|---|---|")
    for (name, _pid), size in sorted(installed.peak_bytes.items()):
        print(f"| {name} | {size / 1e6:.0f} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of measuring, at least 20")
    parser.add_argument("--seed", type=int, default=0, help="of the order of hostile calls")
    parser.add_argument("--log", type=Path, default=Path("out/soak.log"), help="of the service")
    return parser.parse_args()


async def _soak(installed: Installation, attack: Connection, seconds: float) -> tuple[Times, Times]:
    ordinary = Ordinary(installed)
    try:
        await ordinary.prepare()
        async with _meanwhile(_watch(installed)):
            quiet = await ordinary.run(seconds * _QUIET)
            attack.send("begin")
            attacked = await ordinary.run(seconds * (1 - _QUIET))
            attack.send("end")
    finally:
        await ordinary.close()
    return quiet, attacked


@contextlib.asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run endless work beside the block; if it breaks, its error is raised after the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(installed: Installation) -> None:
    """Note resident sizes until cancelled."""
    while True:
        await asyncio.to_thread(installed.look)
        await asyncio.sleep(_LOOK_S)


if __name__ == "__main__":
    main()
