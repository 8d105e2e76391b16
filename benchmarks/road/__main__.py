"""What a job costs on its way in and out, where nothing is painted: `python -m benchmarks.road`."""

import argparse
import itertools
import time
from pathlib import Path

import httpx2

from benchmarks.fake_service import MODEL
from benchmarks.road import kinds
from benchmarks.road.load import Call, send
from benchmarks.road.service import Served, Setup, served

_V4 = "/api/v4/dreambooth"
_ASKED = {
    "key": "",
    "model_id": MODEL,
    "prompt": "a lighthouse at night",
    "num_inference_steps": "4",
    "safety_checker": "no",
    "instant_response": "yes",
}
_ACCEPT = Call(_V4, _ASKED, '"processing"')
_LIVE = Call("/health/live", {}, "")
_WARM_S = 4.0
_PATIENCE_S = 120.0
_CROWD = 10  # times as many connections
_PROXIES = {"serve": "Serve's proxy", "haproxy": "HAProxy"}


def main() -> None:
    """Measure each setup and print the tables."""
    options = _options()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    chosen = [_PROXIES[name] for name in options.proxies.split(",")]
    ingresses = map(int, options.ingresses.split(","))
    for url, proxy, number in itertools.product(options.database or [None], chosen, ingresses):
        setup = Setup(proxy, number, options.max_open, url)
        with served(setup, options.log) as service:
            _report(setup, service, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument(
        "--database", action="append", help="URL of an empty one, again for another; else SQLite"
    )
    parser.add_argument("--max-open", type=int, default=2000, help="jobs; few: calls are refused")
    parser.add_argument("--pace", type=float, default=30.0, help="calls per second, below the most")
    parser.add_argument("--proxies", default="serve", help="of: serve, haproxy")
    parser.add_argument("--ingresses", default="1", help="numbers of ingress replicas")
    parser.add_argument("--profile", type=Path, help="folder for stacks of the ingress; slows it")
    parser.add_argument("--log", type=Path, default=Path("out/road.log"), help="of the service")
    return parser.parse_args()


def _report(setup: Setup, service: Served, options: argparse.Namespace) -> None:
    with httpx2.Client(base_url=service.base_url, timeout=60, trust_env=False) as http:
        send(service.base_url, _ACCEPT, options.connections, _WARM_S)
        _drain(http)
        if options.profile:
            _profile(setup, service, options)
            _drain(http)
        print(f"\n### {setup}\n")
        pace_s = options.connections / options.pace
        _jobs(service, http, options.connections, options.seconds, pace_s)
        _jobs(service, http, options.connections, options.seconds)
        _jobs(service, http, options.connections * _CROWD, options.seconds)
        final = http.post(_V4, json=_ASKED).json()["id"]
        _drain(http)
        fetch = Call(f"{_V4}/fetch", {"key": "", "request_id": final}, '"success"')
        print("\n| call | per second | p50 ms | p99 ms | other answers |\n|---|---|---|---|---|")
        for name, call in (("fetch of a final job", fetch), ("/health/live", _LIVE)):
            got = send(service.base_url, call, options.connections, options.seconds)
            print(
                f"| {name} | {got.rate_hz:.0f} | {got.p50_s * 1e3:.0f} | {got.p99_s * 1e3:.0f} "
                f"| {got.other + got.broken} |",
                flush=True,
            )


def _jobs(
    service: Served, http: httpx2.Client, connections: int, seconds: float, pace_s: float = 0.0
) -> None:
    """Send jobs, wait for the last one, print what they took.

    pace_s: between an answer and the next call of a connection, on the mean.
    """
    before, first, begun = service.cpu_s(), service.num_jobs(), time.monotonic()
    got = send(service.base_url, _ACCEPT, connections, seconds, pace_s)
    _drain(http)
    took_s, after = time.monotonic() - begun, service.cpu_s()
    num_jobs = service.num_jobs() - first
    print(
        f"{connections} connections{', paced' * bool(pace_s)}: {num_jobs / took_s:.1f} jobs per "
        f"second; answers after p50 {got.p50_s * 1e3:.0f} ms, p99 {got.p99_s * 1e3:.0f} ms; "
        f"{got.other / got.seconds:.0f} refusals per second, {got.broken} broken.\n\n"
        "| process | CPU ms per job |\n|---|---|"
    )
    used = {part: (after[part] - before.get(part, 0.0)) / num_jobs * 1e3 for part in after}
    print(f"| all | {sum(used.values()):.1f} |")
    for part in sorted(used, key=used.__getitem__, reverse=True)[:10]:
        print(f"| {part} | {used[part]:.1f} |")
    print(flush=True)


def _drain(http: httpx2.Client) -> None:
    """Wait until no job is open."""
    deadline = time.monotonic() + _PATIENCE_S
    while http.post("/api/v3/system_load").json().get("queue_num", 0):
        assert time.monotonic() < deadline, "jobs do not end"
        time.sleep(0.1)


def _profile(setup: Setup, service: Served, options: argparse.Namespace) -> None:
    """Sample the parts that a job meets, in a run of its own."""
    options.profile.mkdir(parents=True, exist_ok=True)
    parts = ("Ingress", "proxy", "Upload", f"Generator:{MODEL}", "Janitor")
    samplers = {
        part: kinds.Sampler(pid, options.seconds, options.profile / f"{setup}-{part}.txt")
        for part in parts
        for pid in service.pids(part)[:1]
    }
    send(service.base_url, _ACCEPT, options.connections, options.seconds)
    print(f"\n### {setup}: kinds of work\n")
    for part, sampler in samplers.items():
        found = kinds.shares(sampler.stacks())
        print(f"{part}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in found.items()))


if __name__ == "__main__":
    main()
