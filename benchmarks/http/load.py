"""The load generator: one process, one event loop; it costs about 1 % of a core per request/s."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx2

from benchmarks.http.servers import Server
from benchmarks.http.traffic import Body

__all__ = ["Closed", "Open", "closed_loop", "open_loop"]

_PNG = b"\x89PNG"
_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Closed:
    """A fixed number of clients that ask again at once: the server is never idle."""

    completed: int
    seconds: float

    @property
    def rate_hz(self) -> float:
        """Pictures per second."""
        return self.completed / self.seconds


@dataclass(frozen=True, slots=True)
class Open:
    """Clients that come when they like. Latencies count from the scheduled arrival, seconds."""

    latencies_s: tuple[float, ...]
    late_s: float  # the worst delay between a scheduled arrival and its sending


def closed_loop(
    server: Server, port: int, bodies: Iterator[Body], clients: int, window: tuple[float, float]
) -> Closed:
    """Keep `clients` requests in flight; count those that end within the window of seconds."""
    return asyncio.run(_closed(server, port, bodies, clients, window))


def open_loop(server: Server, port: int, bodies: Iterable[Body], times_s: list[float]) -> Open:
    """Send each request at its time, whatever happened to the others; wait for all."""
    return asyncio.run(_open(server, port, bodies, times_s))


async def _closed(
    server: Server, port: int, bodies: Iterator[Body], clients: int, window: tuple[float, float]
) -> Closed:
    start_s, stop_s = window
    began = time.perf_counter()
    ends: list[float] = []

    async def client(http: httpx2.AsyncClient) -> None:
        while time.perf_counter() - began < stop_s:
            await _picture(http, server, next(bodies))
            ends.append(time.perf_counter() - began)

    async with _http(port) as http, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(http))
    return Closed(sum(start_s <= end < stop_s for end in ends), stop_s - start_s)


async def _open(server: Server, port: int, bodies: Iterable[Body], times_s: list[float]) -> Open:
    latencies: list[float] = []
    delays = [0.0]
    began = time.perf_counter() + 0.1

    async def client(http: httpx2.AsyncClient, body: Body, at_s: float) -> None:
        await asyncio.sleep(began + at_s - time.perf_counter())
        delays.append(time.perf_counter() - began - at_s)
        await _picture(http, server, body)
        latencies.append(time.perf_counter() - began - at_s)

    async with _http(port) as http, asyncio.TaskGroup() as group:
        for body, at_s in zip(bodies, times_s, strict=False):
            group.create_task(client(http, body, at_s))
    return Open(tuple(latencies), max(delays))


async def _picture(http: httpx2.AsyncClient, server: Server, body: Body) -> bytes:
    """Ask for one picture and stay until its bytes are here."""
    path, payload = server.request(body)
    reply = (await http.post(path, json=payload)).raise_for_status().json()
    picture = server.picture(reply)
    if isinstance(picture, str):
        picture = (await http.get(picture)).raise_for_status().content
    assert picture.startswith(_PNG), "the reply holds a PNG"
    return picture


def _http(port: int) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT_S, trust_env=False, limits=limits
    )
