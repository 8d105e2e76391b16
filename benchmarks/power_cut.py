"""What `kill -9` and a power cut cost SQLite's accepted jobs: `python -m benchmarks.power_cut`.

A process accepts jobs and tells the number of each as the service would: once it is committed. It
is killed. Then the end of the write-ahead log is torn, as by a write that was under way; or the log
loses all that no call had forced to the disk, which `strace` knows: that is the worst that a power
cut may do. What is still there is compared with what was told.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from pydantic import SecretStr
from sqlalchemy import select

from benchmarks.road.statements import REQUEST
from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from serve_app.database.jobs import SqlJobStore
from serve_app.database.schema import jobs

__all__ = ["accept_for_ever", "accept_until_killed", "cut_power", "lost", "tear"]

_TOGETHER = 16  # calls at a time
_ACCEPT = "from benchmarks.power_cut import accept_for_ever as run; run({path!r}, {is_durable})"
_CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(pwrite64|fdatasync)(?:\(\d+<([^>]*)>(.*)| resumed>(.*))")
_RANGE = re.compile(r", (\d+), (\d+)(?:\) += \d+| <unfinished \.\.\.>)$")


def main() -> None:
    """Compare commits that wait for the disk with those that do not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=600, help="of the first round")
    parser.add_argument("--rounds", type=int, default=5, help="each ends some jobs later")
    given = parser.parse_args()
    numbers = [given.jobs + 137 * turn for turn in range(given.rounds)]
    print("| commits | jobs per second | lost by `kill -9` and a torn write | by a power cut |")
    print("|---|---|---|---|")
    for name, is_durable in (("FULL, as served", True), ("NORMAL", False)):
        accept = partial(accept_until_killed, is_durable=is_durable)
        rounds = [_round(accept, number) for number in numbers]
        rates, torn, cut = zip(*rounds, strict=True)
        print(
            f"| {name} | {statistics.median(rates):.0f} | {', '.join(map(str, torn))} "
            f"| {', '.join(map(str, cut))} |",
            flush=True,
        )


def _round(accept: Callable[..., tuple[set[int], float]], number: int) -> tuple[float, int, int]:
    """Return jobs per second, and how many were lost by a kill and by a power cut."""
    with tempfile.TemporaryDirectory() as home:
        torn, cut, trace = Path(home, "torn.db"), Path(home, "cut.db"), Path(home, "trace")
        told, rate_hz = accept(torn, number=number)
        tear(torn)
        told_before_cut, _ = accept(cut, number=number, trace=trace)
        cut_power(cut, trace)
        return rate_hz, len(lost(torn, told)), len(lost(cut, told_before_cut))


def accept_until_killed(
    path: Path, *, number: int, is_durable: bool = True, trace: Path | None = None
) -> tuple[set[int], float]:
    """Accept about so many jobs in a process that is killed then.

    Args:
        path: of the database, made anew.
        number: of jobs.
        is_durable: wait for the disk at each commit, as the service does.
        trace: where `strace` writes down what was forced to the disk.

    Returns:
        The jobs that it told, and how many per second.
    """
    command = [sys.executable, "-c", _ACCEPT.format(path=str(path), is_durable=is_durable)]
    if trace is not None:
        calls = "trace=pwrite64,fdatasync"
        command = ["strace", "-f", "-y", "-s", "0", "-e", calls, "-o", str(trace), *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        told = {int(process.stdout.readline())}
        began = time.monotonic()
        told.update(int(process.stdout.readline()) for _ in range(number - 1))
        seconds = time.monotonic() - began
        tracer = psutil.Process(process.pid)
        (tracer.children() or [tracer])[0].kill()  # `strace` writes what it has and ends
        told.update(int(line) for line in process.stdout if line.endswith("\n"))
    return told, number / seconds


def accept_for_ever(path: str, is_durable: bool) -> None:  # called by `-c`
    """Accept jobs, a line with the number of each, until this process is killed."""
    asyncio.run(_accept_for_ever(path, is_durable=is_durable))


async def _accept_for_ever(path: str, *, is_durable: bool) -> None:
    store = await open_job_store(_config(Path(path)))
    begin = store.database._begin
    if not is_durable:  # what no setting does
        vars(store.database)["_begin"] = lambda link, **_: begin(link, is_durable=False)

    async def accept() -> None:
        while True:
            os.write(1, b"%d\n" % (await store.add(REQUEST, 10**9)).id)

    await asyncio.gather(*(accept() for _ in range(_TOGETHER)))


def tear(path: Path) -> None:
    """End the log of a database in half a page, as a write that was under way leaves it."""
    log = _log(path)
    data = log.read_bytes()
    log.write_bytes(data + data[-4120:-2000])  # a frame is a page of 4,096 bytes and 24 more


def cut_power(path: Path, trace: Path) -> None:
    """Take from the log of a database what was written and not forced to the disk."""
    log, unsynced, begun = _log(path), [], {}
    for line in trace.read_text(encoding="utf-8").splitlines():
        if (match := _CALL.match(line)) is None:
            continue
        thread, call, file, rest, resumed = match.groups()
        if file is not None:
            begun[thread] = file
            if call == "pwrite64" and Path(file) == log and (span := _RANGE.search(rest)):
                unsynced.append((int(span[1]), int(span[2])))
        ended = rest if file is not None else resumed
        if call == "fdatasync" and ended.endswith("= 0") and Path(begun[thread]) == log:
            unsynced.clear()
    with log.open("r+b") as written:
        for size, offset in unsynced:
            written.seek(offset)
            written.write(bytes(size))


def lost(path: Path, told: set[int]) -> set[int]:
    """Open the database anew; return which of the told jobs it does not have."""
    return told - asyncio.run(_kept(path))


async def _kept(path: Path) -> set[int]:
    store = SqlJobStore(_config(path))
    try:
        return set(await store.database.read(lambda one: one.scalars(select(jobs.c.id)).all()))
    finally:
        await store.close()


def _config(path: Path) -> DatabaseConfig:
    return DatabaseConfig(url=SecretStr(f"sqlite:///{path}"))


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


if __name__ == "__main__":
    main()
