"""A loopback server that says what a test tells it, byte for byte, and counts its callers."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from serve_app.net import GuardedClient, Policy
from serve_app.net.transport import Resolver

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """What a test knows of a server: where it is, who called, what they sent."""

    port: int = 0
    calls: int = 0
    requests: list[bytes] = field(default_factory=list)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Start servers: `await serve(reply)`, where reply is bytes or a coroutine function."""
    listeners, tasks = [], set()

    async def start(reply: bytes | Script, tls: ssl.SSLContext | None = None) -> Server:
        server = Server()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server.calls += 1
            tasks.add(asyncio.current_task())
            try:
                server.requests.append(await reader.readuntil(b"\r\n\r\n"))
                if callable(reply):
                    await reply(reader, writer)
                else:
                    writer.write(reply)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                writer.transport.abort()

        listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
        listeners.append(listener)
        server.port = listener.sockets[0].getsockname()[1]
        return server

    yield start
    for listener in listeners:
        listener.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    await asyncio.sleep(0)  # aborted transports close in the next turn of the loop


async def resolve(host: str, port: int) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


@pytest.fixture
def client() -> Callable[..., GuardedClient]:
    """Make a client that may call good.test, which is this machine: `client(max_bytes=5)`."""

    def make(resolver: Resolver | None = resolve, tls: ssl.SSLContext | None = None, **limits):
        limits = {"allowed_hosts": ("good.test",), "timeout_s": 5.0, **limits}
        # A context without authorities: loading those takes longer than most tests.
        tls = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return GuardedClient(Policy(**limits), resolver, tls)

    return make


@pytest.fixture
def fetch(client: Callable[..., GuardedClient]) -> Callable[..., Awaitable[bytes]]:
    """Fetch from a server of `serve`: `await fetch(server, "/path", max_bytes=5)`."""

    async def get(server: Server, path: str = "/", **limits) -> bytes:
        async with client(**limits) as guarded:
            return await guarded.get(f"http://good.test:{server.port}{path}")

    return get
