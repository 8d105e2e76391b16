"""Dials only addresses that were judged: DNS is asked once, and the answer itself is dialled.

A name that is judged and then resolved again by the dialler can change in between (DNS
rebinding). So the guard sits where connections are made, below HTTP and TLS: every redirect and
every retry passes it, and TLS still checks the certificate against the name.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore2

from serve_app.net.address import is_public
from serve_app.net.failure import ForbiddenAddress, UnknownHost, Unreachable

__all__ = ["GuardedBackend", "Resolver", "SystemResolver", "is_own"]

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to IP addresses as text; raises OSError when the name does not resolve."""

# Lookups that hang must not use up the threads of the process, so they have a few of their own.
_RESOLVER_THREADS = 8
_UNKNOWN = (socket.EAI_NONAME, socket.EAI_NODATA)  # all else may be the resolver's own trouble


class SystemResolver:
    """The machine's resolver, on threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Resolve a name, or any spelling of an address that the C library knows."""
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(answers))

    def close(self) -> None:
        """Abandon the threads without waiting for lookups in flight."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedBackend(httpcore2.AsyncNetworkBackend):  # type: ignore[misc]
    """The connection maker of httpcore2, with the guard inside.

    Args:
        resolver: asked once per connection.
        allowed_hosts: lower-case names whose addresses are not judged.
        dialler: makes the connections; replaced in tests.
    """

    def __init__(
        self,
        resolver: Resolver,
        allowed_hosts: frozenset[str],
        dialler: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._resolver = resolver
        self._allowed_hosts = allowed_hosts
        self._dialler = dialler or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the signature of httpcore2
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, judge every answer, dial the first address that accepts.

        Args:
            host: name or address, as in the URL.
            port: 1 to 65535.
            timeout: seconds for the lookup and for each address that is tried.
            local_address: as in httpcore2.
            socket_options: as in httpcore2.

        Raises:
            Unreachable: no address accepts the connection; also what `addresses` raises.
        """
        addresses = await self.addresses(host, port, timeout)
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._dialler.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
        raise Unreachable(f"{host} port {port} does not accept connections") from failure

    async def addresses(self, host: str, port: int, limit_s: float | None) -> Sequence[str]:
        """Resolve and judge every answer; these may be dialled, and no others.

        Raises:
            ForbiddenAddress: any of them is not public.
            UnknownHost: there are none.
            Unreachable: the resolver gave no answer within `limit_s` seconds.
        """
        addresses = await self._resolve(host, port, limit_s)
        if host.rstrip(".") not in self._allowed_hosts:
            for address in addresses:
                if not is_public(address) or is_own(address):
                    raise ForbiddenAddress(f"{host} resolves to {address}")
        return addresses

    async def _resolve(self, host: str, port: int, limit_s: float | None) -> Sequence[str]:
        try:
            async with asyncio.timeout(limit_s):
                addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as exc:  # a timeout is an OSError
            is_unknown = isinstance(exc, UnicodeError) or (
                isinstance(exc, socket.gaierror) and exc.errno in _UNKNOWN
            )
            failure = UnknownHost if is_unknown else Unreachable
            raise failure(f"{host} does not resolve") from exc
        if not addresses:
            raise UnknownHost(f"{host} resolves to nothing")
        return addresses


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's, also when it is a public one.

    What listens there may be hidden from the outside by a firewall that calls from the machine
    to itself never pass. Connecting a datagram socket sends nothing; it only asks for a route,
    and a route to oneself starts at the target.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False


def _look_up(host: str, port: int) -> list[str]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]
