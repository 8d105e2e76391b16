"""Hostile callers: every kind of call that once held up the others, at a bounded pace.

They are a process of their own, as strangers are: what they spend on sending is not counted as a
delay of the ordinary callers.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import multiprocessing
import random
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import httpx2

from benchmarks.soak import pictures
from benchmarks.soak.installation import MODEL, Installation

__all__ = ["Answers", "Attack", "Call", "calls", "hostile"]

Answers = dict[str, collections.Counter[str]]  # what came how often, by kind

_CALLERS = 8
_PAUSE_S = 4.0  # of each caller between two calls
_TIMEOUT_S = 60.0
_DRIPS = 24  # connections
_DRIP_S = 1.0  # between two bytes
_V4 = "/api/v4/dreambooth"
_INSIDE = (
    "http://127.0.0.1:6379/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:10.0.0.1]/a.png",
    "http://0x7f.1/a.png",
    "http://192.0.2.1:22/a.png",
    "file:///etc/passwd",
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it is sent."""

    path: str
    content: bytes
    headers: dict[str, str]


def calls(key: str) -> dict[str, Call]:
    """Build the bodies: once, since many are large."""

    def with_key(path: str, **fields: str | int) -> Call:
        text = json.dumps({"key": key, "model_id": MODEL, "prompt": "a", **fields})
        return Call(path, text.encode(), {"content-type": "application/json"})

    def raw(content: bytes, content_type: str = "application/json") -> Call:
        return Call(_V4, content, {"content-type": content_type})

    many_scans = pictures.data_uri("jpeg", pictures.scans(1000, 8192, 3906))
    few_scans = pictures.data_uri("jpeg", pictures.scans(40, 8192, 3906))
    canvas = pictures.data_uri("webp", pictures.webp(8000, 4000))
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    numbers = b",".join([b"7" * 4000] * 7000)
    addresses = {
        f"{field} {url}": with_key(f"{_V4}/img2img", **{"init_image": canvas, field: url})
        for field, url in itertools.product(("init_image", "webhook"), _INSIDE)
    }
    return {
        "form of %41, no key": raw(
            b"prompt=" + b"%41" * 5_000_000, "application/x-www-form-urlencoded"
        ),
        "base64 of %41": with_key("/api/v6/base64_to_url", base64_string="%41" * 10_000_000),
        "7,000 numbers": raw(b'{"a":[' + numbers + b"]}"),
        "deep JSON": raw(b"[" * 8_000_000),
        "100,000 parts": raw(part * 100_000 + b"--b--\r\n", "multipart/form-data; boundary=b"),
        "1,000 scans": with_key(f"{_V4}/img2img", init_image=many_scans),
        "1,000 scans, nsfw check": with_key("/api/v3/nsfw_image_check", init_image=many_scans),
        "40 scans, nsfw check": with_key("/api/v3/nsfw_image_check", init_image=few_scans),
        "WebP of 32 megapixels": with_key("/api/v6/base64_to_url", base64_string=canvas),
        "long headers": Call(_V4, b"{}", {"x-long": "a" * 100_000}),
        **addresses,
    }


@contextlib.contextmanager
def hostile(installed: Installation, seed: int) -> Iterator[Connection]:
    """Start the process. It begins and ends when it is sent anything, and then sends `Answers`."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (installed.port, installed.hostile_key, seed, theirs)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments)
    process.start()
    try:
        ours.recv()  # its bodies are built
        yield ours
    finally:
        process.kill()
        process.join()


def _serve(port: int, key: str, seed: int, orders: Connection) -> None:
    attack = Attack(port, key, seed)
    orders.send(None)
    orders.recv()
    asyncio.run(_until_told(attack, orders))
    orders.send(attack.answers)


async def _until_told(attack: "Attack", orders: Connection) -> None:
    running = asyncio.create_task(attack.run())
    await asyncio.to_thread(orders.recv)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


class Attack:
    """The callers. `answers` counts what they were told."""

    def __init__(self, port: int, key: str, seed: int) -> None:
        self.answers: Answers = {}
        self._port = port
        self._key = key
        self._calls = calls(key)
        self._random = random.Random(seed)
        self._turns = self._in_turn()

    async def run(self) -> None:
        """Send until cancelled."""
        limits = httpx2.Limits(max_keepalive_connections=0)  # each call dials, as strangers do
        async with (
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{self._port}",
                timeout=_TIMEOUT_S,
                trust_env=False,
                limits=limits,
            ) as http,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(_CALLERS):
                group.create_task(self._caller(http))
            for _ in range(_DRIPS):
                group.create_task(self._drip())

    def _note(self, name: str, answer: str) -> None:
        self.answers.setdefault(name, collections.Counter())[answer] += 1

    def _in_turn(self) -> Iterator[str]:
        """Name the kinds in endless rounds, each in another order; addresses are one of them."""
        addresses = [name for name in self._calls if "://" in name]
        kinds = [name for name in self._calls if "://" not in name]
        while True:
            some = self._random.sample(addresses, 3)
            yield from self._random.sample([*kinds, *some, "cancelled", "left"], len(kinds) + 5)

    async def _caller(self, http: httpx2.AsyncClient) -> None:
        await asyncio.sleep(self._random.uniform(0, _PAUSE_S))
        while True:
            name = next(self._turns)
            try:
                answer = await self._send(http, name)
            except (httpx2.HTTPError, OSError, ValueError) as exc:
                answer = type(exc).__name__
            self._note(_kind(name), answer)
            await asyncio.sleep(_PAUSE_S * self._random.uniform(0.5, 1.5))

    async def _send(self, http: httpx2.AsyncClient, name: str) -> str:
        if name == "cancelled":
            return await self._cancel(http)
        if name == "left":
            return await self._leave()
        call = self._calls[name]
        reply = await http.post(call.path, content=call.content, headers=call.headers)
        return _told(reply)

    async def _cancel(self, http: httpx2.AsyncClient) -> str:
        """Submit ten jobs and cancel each at once."""
        body = {"key": self._key, "model_id": MODEL, "prompt": "a"}
        told = ""
        for _ in range(10):
            job = (await http.post(_V4, json={**body, "instant_response": "yes"})).json()
            told = _told(await http.post(f"{_V4}/cancel/{job.get('id', 0)}", json=body))
        return told

    async def _leave(self) -> str:
        """Hang up in the middle of a body."""
        async with self._connection() as writer:
            writer.write(_HEAD % 1_000_000 + b'{"prompt":"' + b"a" * 500_000)
            await writer.drain()
        return "hung up"

    async def _drip(self) -> None:
        """Keep a connection open by a byte at a time; open another when it is closed."""
        while True:
            with contextlib.suppress(OSError):
                async with self._connection() as writer:
                    writer.write(_HEAD % 1_000_000)
                    while not writer.transport.is_closing():
                        writer.write(b" ")
                        await writer.drain()
                        await asyncio.sleep(_DRIP_S)
            self._note("drip", "sent away")
            await asyncio.sleep(_DRIP_S)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncio.StreamWriter]:
        _reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, family=socket.AF_INET
        )
        try:
            yield writer
        finally:
            writer.transport.abort()


_HEAD = (
    b"POST /api/v4/dreambooth HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n"
)


def _kind(name: str) -> str:
    """Count the addresses together."""
    return f"{name.split(maxsplit=1)[0]} inside" if "://" in name else name


def _told(reply: httpx2.Response) -> str:
    """Return the code, and what the body says of itself."""
    try:
        answer = reply.json()
    except ValueError:
        return str(reply.status_code)
    status = answer.get("status", "") if isinstance(answer, dict) else ""
    reason = answer.get("reason", "") if isinstance(answer, dict) else ""
    return " ".join(filter(None, (str(reply.status_code), status, reason)))
