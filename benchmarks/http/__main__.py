"""Run benchmark 2: `python -m benchmarks.http --help`."""

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.http.load import closed_loop, open_loop
from benchmarks.http.loras import CHECKPOINT, write_loras
from benchmarks.http.report import LOADS, Measured, best_peer, markdown
from benchmarks.http.servers import Files, Running, Server, running, servers
from benchmarks.http.traffic import Body, arrivals_s, identical, mixed, with_loras
from serve_app.testing.checkpoints import write_random_text2img

_TRAFFIC: dict[str, Callable[[int], Iterator[Body]]] = {
    "mixed": mixed,
    "identical": identical,
    "loras": with_loras,
}
_WARM_UP_S = 5.0


def main() -> None:
    """Measure, print, and keep every figure in a JSON file."""
    options = _options()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}  # the same for all servers
    if options.haproxy:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    everyone = servers(options.bento, batches_pay=options.traffic == "identical")
    chosen = [s for s in everyone if any(part in s.name for part in options.servers)]
    measured = {server.name: Measured() for server in chosen}
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(options, Path(folder))
        if options.rate is None:
            for server in chosen:
                bench.saturate_alone(server, measured[server.name])
        load_hz = options.rate or measured[best_peer(measured)].rate_hz()
        for number in range(options.rounds):
            for server in chosen[number % len(chosen) :] + chosen[: number % len(chosen)]:
                bench.round(server, measured[server.name], number, load_hz)
                _save(options, measured)
    print(markdown(measured, load_hz))


def _save(options: argparse.Namespace, measured: dict[str, Measured]) -> None:
    """Keep what there is: a long run may be interrupted."""
    results = {name: asdict(result) for name, result in measured.items()}
    text = json.dumps({"options": vars(options), "results": results}, indent=1)
    Path(options.out).write_text(text, encoding="utf-8")


class _Bench:
    """The measurements; only the server under test runs."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._draw = _TRAFFIC[options.traffic]
        self._files = Files(folder / "checkpoint", folder / "loras")
        if options.traffic == "loras":
            self._files = Files(CHECKPOINT, folder / "loras")
            write_loras(self._files.loras)
        else:
            write_random_text2img(self._files.checkpoint)

    def saturate_alone(self, server: Server, result: Measured) -> None:
        """Find the rate that the loads refer to."""
        with self._started(server) as at:
            self._saturate(server, at, result, seed=0)

    def round(self, server: Server, result: Measured, number: int, load_hz: float) -> None:
        """Measure saturation and the loads once; every server gets the same arrivals."""
        with self._started(server) as at:
            if len(result.rates_hz) <= number:  # else that of `saturate_alone` counts
                self._saturate(server, at, result, seed=number)
            for load in LOADS:
                rng = random.Random(f"{number} {load}")  # for repeatability
                times_s = arrivals_s(rng, load * load_hz, self._options.seconds)
                bodies = itertools.islice(self._draw(rng.randrange(10**6)), len(times_s))
                done = open_loop(server, at.port, bodies, times_s)
                result.open_loops.setdefault(load, []).append(done)
                mean_s = sum(done.latencies_s) / max(1, len(done.latencies_s))
                self._say(f"{server.name}: load {load:.0%} mean {mean_s:.2f} s")

    @contextmanager
    def _started(self, server: Server) -> Iterator[Running]:
        """Run a server that has painted a little of everything."""
        log = Path(self._options.out).with_suffix(".log")
        with running(server, self._files, self._folder, log) as at:
            closed_loop(server, at.port, self._draw(1), 4, (0.0, _WARM_UP_S))
            yield at

    def _saturate(self, server: Server, at: Running, result: Measured, seed: int) -> None:
        ramp_s: float = self._options.ramp
        window = (ramp_s, ramp_s + self._options.seconds)
        before, began = at.cpu_s(), time.monotonic()
        done = closed_loop(server, at.port, self._draw(seed), self._options.clients, window)
        after, wall_s = at.cpu_s(), time.monotonic() - began
        result.rates_hz.append(done.rate_hz)
        result.cores.append({p: (after[p] - before.get(p, 0.0)) / wall_s for p in after})
        self._say(f"{server.name}: saturation {done.rate_hz:.2f}/s")

    def _say(self, text: str) -> None:
        print(f"[{time.strftime('%X')}] {text}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each measurement")
    parser.add_argument("--clients", type=int, default=48, help="in flight at saturation")
    parser.add_argument("--ramp", type=float, default=8.0, help="s until in-flight work is even")
    parser.add_argument("--traffic", choices=_TRAFFIC, default="mixed")
    parser.add_argument("--rate", type=float, help="best peer's saturation, when it is known")
    parser.add_argument("--servers", nargs="+", default=[""], help="parts of their names")
    parser.add_argument("--bento", default=sys.executable, help="interpreter that has bentoml")
    parser.add_argument("--haproxy", action="store_true", help="Ray Serve's servers behind HAProxy")
    parser.add_argument("--out", default="out/http.json", help="every figure; a log beside it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
