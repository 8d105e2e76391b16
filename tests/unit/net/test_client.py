"""The guarded client on good days, and the rules that hold for every call."""

import asyncio
import pickle
import ssl
import threading

import pytest

from serve_app.net import (
    BadStatus,
    ForbiddenAddress,
    GuardedClient,
    NetFailure,
    Policy,
    Refused,
    TooLarge,
    TooManyRedirects,
    TooSlow,
    Unreachable,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def test_allowed_host_is_fetched(serve, fetch):
    server = await serve(OK)
    assert await fetch(server, "/a?b=c#d") == b"hello"
    request = server.requests[0].lower()
    assert request.startswith(b"get /a?b=c http/1.1\r\n")
    assert b"host: good.test:%d\r\n" % server.port in request
    assert request.count(b"\r\nhost:") == 1
    for header in (b"accept-encoding: identity", b"connection: close", b"user-agent: dreamserve"):
        assert header + b"\r\n" in request


async def test_private_host_that_is_not_allowed_sees_no_connection(serve, client):
    server = await serve(OK)
    async with client(allowed_ports=(server.port,)) as guarded:
        with pytest.raises(ForbiddenAddress):
            await guarded.get(f"http://other.test:{server.port}/")
    assert server.calls == 0


async def test_port_that_is_not_allowed_is_refused(serve, client):
    server = await serve(OK)
    async with client() as guarded:
        with pytest.raises(Refused, match="port"):
            await guarded.get(f"http://other.test:{server.port}/")


async def test_proxy_variables_are_ignored(serve, monkeypatch, fetch):
    server, proxy = await serve(OK), await serve(OK)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert await fetch(server) == b"hello"
    assert proxy.calls == 0


async def test_closed_port_raises_unreachable(serve, unused_port, client):
    async with client() as guarded:
        with pytest.raises(Unreachable):
            await guarded.get(f"http://good.test:{unused_port}/")


async def test_lookup_that_hangs_ends_at_the_time_to_connect(client):
    async def hang(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    async with client(hang, connect_timeout_s=0.05, timeout_s=30) as guarded:
        with pytest.raises(Unreachable):
            await guarded.get("http://good.test/")


async def test_client_that_is_closed_leaves_no_thread_of_its_resolver(serve, monkeypatch):
    server, before = await serve(OK), set(threading.enumerate())
    monkeypatch.setattr("serve_app.net.transport._look_up", lambda host, port: ["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with GuardedClient(Policy(allowed_hosts=("good.test",)), ssl_context=tls) as guarded:
        assert await guarded.get(f"http://good.test:{server.port}/") == b"hello"
        own = set(threading.enumerate()) - before
    assert own
    for thread in own:
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()


async def test_one_client_serves_many_calls_at_once(serve, client):
    server = await serve(OK)
    async with client() as guarded:
        url = f"http://good.test:{server.port}/"
        assert await asyncio.gather(*(guarded.get(url) for _ in range(20))) == [b"hello"] * 20


async def test_cancelled_call_leaves_the_client_usable(serve, client):
    arrived = asyncio.Event()

    async def silent(reader, writer):
        arrived.set()
        await reader.read()

    slow, good = await serve(silent), await serve(OK)
    async with client() as guarded:
        call = asyncio.create_task(guarded.get(f"http://good.test:{slow.port}/"))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await guarded.get(f"http://good.test:{good.port}/") == b"hello"


async def test_post_to_the_inside_is_refused(serve, client):
    server = await serve(OK)
    async with client(allowed_ports=(server.port,)) as guarded:
        for host, why in (("127.0.0.1", Refused), ("other.test", ForbiddenAddress)):
            with pytest.raises(why):
                await guarded.post(f"http://{host}:{server.port}/", b"", {})
    assert server.calls == 0


def test_every_failure_pickles_with_its_fields():
    fields = {
        Refused("x"): {"reason": "x"},
        BadStatus(404): {"status": 404},
        TooLarge(5): {"limit_bytes": 5},
        TooSlow(1.5): {"limit_s": 1.5},
        TooManyRedirects(3): {"limit": 3},
    }
    for failure, held in fields.items():
        again = pickle.loads(pickle.dumps(failure))
        assert isinstance(again, NetFailure)
        assert again.__dict__ == failure.__dict__ == held


@pytest.fixture
async def unused_port() -> int:
    listener = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port


async def test_calls_do_not_wait_for_each_other(serve, client):
    """As many as there are: those who call bound them, and one slow host holds up no other."""
    num_calls, here, all_here = 30, 0, asyncio.Event()

    async def reply(_reader, writer):
        nonlocal here
        here += 1
        if here == num_calls:
            all_here.set()
        await all_here.wait()
        writer.write(OK)

    server = await serve(reply)
    async with client() as guarded:
        calls = [guarded.get(f"http://good.test:{server.port}/") for _ in range(num_calls)]
        assert await asyncio.gather(*calls) == [b"hello"] * num_calls


async def test_calls_at_work_end_with_the_client(serve, client):
    async def reply(_reader, _writer):
        await asyncio.sleep(60)

    server = await serve(reply)
    async with client(timeout_s=30) as guarded:
        call = asyncio.create_task(guarded.get(f"http://good.test:{server.port}/"))
        while not server.requests:
            await asyncio.sleep(0.005)
    with pytest.raises(NetFailure):
        await asyncio.wait_for(call, 5)
