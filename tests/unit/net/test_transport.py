"""The guard where connections are made: one lookup, every answer judged, the literal dialled."""

import asyncio
import socket
import threading

import httpcore2
import pytest

from serve_app.net import transport
from serve_app.net.failure import ForbiddenAddress, UnknownHost, Unreachable
from serve_app.net.transport import GuardedBackend, SystemResolver, is_own


class Dialler(httpcore2.AsyncNetworkBackend):
    """Records what it is asked to dial, and how; refuses the addresses in `dead`."""

    def __init__(self, *dead: str, error: type[Exception] = httpcore2.ConnectError) -> None:
        self.dialled: list[str] = []
        self.given: list[tuple] = []
        self._dead, self._error = dead, error

    async def connect_tcp(self, host, port, *limits):
        self.dialled.append(host)
        self.given.append((port, *limits))
        if host in self._dead:
            raise self._error("dead")
        return httpcore2.AsyncMockStream([])


def answering(*rounds: list[str]):
    """A resolver that gives each list in turn, as a rebinding name server does."""
    left = list(rounds)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0)

    return resolve


async def test_public_answer_is_dialled_as_a_literal():
    dialler = Dialler()
    backend = GuardedBackend(answering(["1.1.1.1"]), frozenset(), dialler)
    await backend.connect_tcp("good.test", 80)
    assert dialler.dialled == ["1.1.1.1"]


async def test_rebinding_name_is_resolved_once_per_connection_and_judged_each_time():
    dialler = Dialler()
    backend = GuardedBackend(answering(["1.1.1.1"], ["127.0.0.1"]), frozenset(), dialler)
    await backend.connect_tcp("rebind.test", 80)
    with pytest.raises(ForbiddenAddress):
        await backend.connect_tcp("rebind.test", 80)
    assert dialler.dialled == ["1.1.1.1"]


@pytest.mark.parametrize(
    "answers",
    [["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], ["1.1.1.1", "::1"], ["fe80::1%lo"]],
    ids=["bad_last", "bad_first", "bad_v6", "zone"],
)
async def test_mixed_answers_are_refused_before_any_dial(answers):
    dialler = Dialler()
    with pytest.raises(ForbiddenAddress):
        await GuardedBackend(answering(answers), frozenset(), dialler).connect_tcp("mix.test", 80)
    assert dialler.dialled == []


async def test_dialler_gets_the_port_and_the_limits_of_the_caller():
    dialler, options = Dialler(), [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    backend = GuardedBackend(answering(["1.1.1.1"]), frozenset(), dialler)
    await backend.connect_tcp("good.test", 81, 2.5, "192.0.2.7", options)
    assert dialler.given == [(81, 2.5, "192.0.2.7", options)]


@pytest.mark.parametrize("error", [httpcore2.ConnectError, httpcore2.ConnectTimeout])
async def test_dead_address_is_followed_by_the_next_one(error):
    dialler = Dialler("2600::1", error=error)
    backend = GuardedBackend(answering(["2600::1", "1.1.1.1"]), frozenset(), dialler)
    await backend.connect_tcp("good.test", 80)
    assert dialler.dialled == ["2600::1", "1.1.1.1"]


async def test_no_address_accepts_raises_unreachable():
    backend = GuardedBackend(answering(["1.1.1.1"]), frozenset(), Dialler("1.1.1.1"))
    with pytest.raises(Unreachable):
        await backend.connect_tcp("down.test", 80)


async def test_name_without_addresses_is_unknown():
    with pytest.raises(UnknownHost):
        await GuardedBackend(answering([]), frozenset(), Dialler()).connect_tcp("none.test", 80)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no name"), UnknownHost),
        (socket.gaierror(socket.EAI_NODATA, "no data"), UnknownHost),
        (UnicodeError("label too long"), UnknownHost),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), Unreachable),
        (OSError(socket.EAI_NONAME, "no file"), Unreachable),
    ],
    ids=repr,
)
async def test_only_what_the_name_servers_deny_is_unknown(error, why):
    async def fail(host: str, port: int) -> list[str]:
        raise error

    with pytest.raises(Unreachable) as caught:
        await GuardedBackend(fail, frozenset(), Dialler()).connect_tcp("a.test", 80)
    assert type(caught.value) is why


@pytest.mark.parametrize("name", ["inside.test", "inside.test."])
async def test_allowed_host_may_be_private(name):
    dialler = Dialler()
    backend = GuardedBackend(answering(["10.0.0.1"]), frozenset({"inside.test"}), dialler)
    await backend.connect_tcp(name, 80)
    assert dialler.dialled == ["10.0.0.1"]


async def test_hanging_lookup_ends_at_the_timeout():
    async def hang(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    with pytest.raises(Unreachable):
        await GuardedBackend(hang, frozenset(), Dialler()).connect_tcp("slow.test", 80, 0.05)


async def test_system_resolver_gives_each_address_once():
    resolver = SystemResolver()
    assert await resolver("127.0.0.1", 80) == ["127.0.0.1"]
    resolver.close()


async def test_system_resolver_unknown_name_raises_os_error():
    resolver = SystemResolver()
    with pytest.raises((OSError, UnicodeError)):
        await resolver("a..b", 80)
    resolver.close()


async def test_closed_resolver_waits_for_no_lookup_and_begins_none(monkeypatch):
    monkeypatch.setattr(transport, "_RESOLVER_THREADS", 1)
    began, go, ended = threading.Event(), threading.Event(), []

    def hang(host: str, port: int) -> list[str]:
        began.set()
        go.wait(5)
        ended.append(host)
        return [host]

    monkeypatch.setattr(transport, "_look_up", hang)
    resolver = SystemResolver()
    lookups = [asyncio.create_task(resolver(host, 80)) for host in ("first", "second")]
    await asyncio.to_thread(began.wait, 5)
    resolver.close()
    assert ended == []
    go.set()
    first, second = await asyncio.gather(*lookups, return_exceptions=True)
    assert first == ["first"]
    assert isinstance(second, asyncio.CancelledError)


async def test_lookups_that_hang_hold_eight_threads_at_most(monkeypatch):
    go = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        go.wait(5)
        return [host]

    monkeypatch.setattr(transport, "_look_up", hang)
    resolver, before = SystemResolver(), set(threading.enumerate())
    lookups = [asyncio.create_task(resolver(str(number), 80)) for number in range(12)]
    await asyncio.sleep(0)
    own = set(threading.enumerate()) - before
    assert len(own) == 8
    assert all(thread.name.startswith("resolver") for thread in own)
    go.set()
    assert await asyncio.gather(*lookups) == [[str(number)] for number in range(12)]
    resolver.close()


def test_is_own_knows_the_addresses_of_this_machine():
    assert is_own("127.0.0.1")
    assert not is_own("192.0.2.1")
    assert not is_own("2001:db8::1")


async def test_own_public_address_is_refused(monkeypatch):
    monkeypatch.setattr("serve_app.net.transport.is_own", lambda address: True)
    dialler = Dialler()
    with pytest.raises(ForbiddenAddress):
        await GuardedBackend(answering(["1.1.1.1"]), frozenset(), dialler).connect_tcp("me.test", 1)
    assert dialler.dialled == []
