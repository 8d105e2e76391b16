"""HTTP to addresses that clients of this service name, under limits of size, time and hops.

Built on httpcore2's connection pool and httpx2's URLs, without httpx2's client: that one reads
proxy variables, keeps cookies and unpacks bodies, none of which may happen here. Bodies are
counted as they come off the wire and never unpacked.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from serve_app.net.address import is_inside
from serve_app.net.failure import (
    BadReply,
    BadStatus,
    Refused,
    TooLarge,
    TooManyRedirects,
    TooSlow,
    Unreachable,
)
from serve_app.net.transport import GuardedBackend, Resolver, SystemResolver

__all__ = ["GuardedClient", "Policy", "PostReply"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_URL_CHARS = 8192
# Names as DNS has them, underscores included, dotted v4 addresses, and bare v6 ones. What else
# a URL may hold as its host (percent signs, quotes, zone ids) only serves to confuse.
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*)|[0-9a-f:.]*:[0-9a-f:.]*")


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of one client.

    Args:
        allowed_hosts: names that may resolve to private or special addresses, on any port.
        allowed_ports: ports that other hosts may be dialled on.
        max_redirects: hops of one `get`, each judged anew.
        timeout_s: seconds for one whole call, lookups and redirects included.
        connect_timeout_s: seconds for a lookup and for each connection.
        max_bytes: bytes of one body.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = (80, 443)
    max_redirects: int = 3
    timeout_s: float = 15.0
    connect_timeout_s: float = 5.0
    max_bytes: int = 20 * 1024**2


@dataclass(frozen=True, slots=True)
class PostReply:
    """What a server answered to a `post`; header values are its own words."""

    status: int
    retry_after: str | None = None


class GuardedClient:
    """An HTTP client that reaches the public internet and named hosts, nothing else.

    Safe to call from many coroutines of one event loop. Connections are not kept, so that each
    call is judged by itself.

    Args:
        policy: the limits.
        resolver: replaces the machine's resolver, in tests.
        ssl_context: replaces the default certificate authorities.
    """

    def __init__(
        self,
        policy: Policy,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._allowed_hosts = frozenset(_canonical(host) for host in policy.allowed_hosts)
        self._system: SystemResolver | None = None
        if resolver is None:
            resolver = self._system = SystemResolver()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context or httpx2.create_ssl_context(trust_env=False),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=GuardedBackend(resolver, self._allowed_hosts),
        )

    async def get(self, url: str) -> bytes:
        """Fetch a body whole. Redirects are followed.

        Raises:
            NetFailure: the class says why; see `failure`.
        """
        async with self._limits():
            target = self._judge(url)
            for _ in range(self._policy.max_redirects + 1):
                async with self._send("GET", target, {}, None) as response:
                    if response.status == 200:
                        return await self._read(response)
                    if response.status not in _REDIRECTS:
                        raise BadStatus(response.status)
                    target = self._judge(_next_url(target, response))
            raise TooManyRedirects(self._policy.max_redirects)

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> PostReply:
        """Send a body; redirects are not followed, the reply's body is not read.

        Raises:
            NetFailure: the class says why; see `failure`.
        """
        async with (
            self._limits(),
            self._send("POST", self._judge(url), headers, content) as response,
        ):
            asked = _header(response, b"retry-after")
            text = None if asked is None else asked.decode("latin-1")
            return PostReply(int(response.status), text)

    async def aclose(self) -> None:
        """Close connections that are still in use."""
        await self._pool.aclose()
        if self._system is not None:
            self._system.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _limits(self) -> AsyncIterator[None]:
        """One deadline for the whole call (a limit per read does not stop a slow drip)."""
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                yield
        except TimeoutError as exc:
            raise TooSlow(self._policy.timeout_s) from exc
        except httpcore2.ConnectTimeout as exc:
            raise Unreachable("timed out while connecting") from exc
        except httpcore2.ConnectError as exc:  # TLS: the wrong name, an unknown authority
            raise Unreachable(f"no secure connection: {exc}") from exc
        except (
            httpcore2.ProtocolError,
            httpcore2.NetworkError,
            httpcore2.TimeoutException,
        ) as exc:
            raise BadReply(str(exc)) from exc

    def _judge(self, url: str | httpx2.URL) -> httpx2.URL:
        """Judge what the text of a URL tells; what its name resolves to is judged when dialled."""
        parsed = _parse(url)
        if parsed.scheme not in _DEFAULT_PORTS:
            raise Refused("only http and https URLs are accepted")
        if parsed.userinfo:
            raise Refused("a URL with a user name or password is not accepted")
        host = parsed.raw_host.decode("ascii")
        if not _HOST.fullmatch(host):
            raise Refused("the URL has no valid host name")
        port = _DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
        is_allowed_host = _canonical(host) in self._allowed_hosts and 0 < port < 65536
        if not is_allowed_host and port not in self._policy.allowed_ports:
            raise Refused(f"port {port} is not allowed")
        if not is_allowed_host and is_inside(host):
            raise Refused("its address is not allowed")
        return parsed

    @asynccontextmanager
    async def _send(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], content: bytes | None
    ) -> AsyncIterator[httpcore2.Response]:
        target = httpcore2.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        ours: dict[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": "dreamserve",
            "Connection": "close",
        }
        async with self._pool.stream(
            method,
            target,
            headers=ours | dict(headers.items()),
            content=content,
            extensions={"timeout": {"connect": self._policy.connect_timeout_s}},
        ) as response:
            yield response

    async def _read(self, response: httpcore2.Response) -> bytes:
        limit = self._policy.max_bytes
        declared = _header(response, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise TooLarge(limit)
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > limit:
                raise TooLarge(limit)
        return bytes(body)


def _canonical(host: str) -> str:
    return host.lower().rstrip(".")


def _parse(url: str | httpx2.URL) -> httpx2.URL:
    if isinstance(url, httpx2.URL):
        return url
    if len(url) > _MAX_URL_CHARS:
        raise Refused(f"the URL has more than {_MAX_URL_CHARS} characters")
    try:
        return httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as exc:  # IDNA and port errors are ValueErrors
        raise Refused("the URL is not valid") from exc


def _next_url(current: httpx2.URL, response: httpcore2.Response) -> httpx2.URL:
    location = _header(response, b"location")
    if location is None or len(location) > _MAX_URL_CHARS:
        raise BadReply("a redirect without a usable location")
    try:
        return current.join(location.decode("utf-8"))
    except (httpx2.InvalidURL, ValueError) as exc:
        raise BadReply("a redirect to a location that is no URL") from exc


def _header(response: httpcore2.Response, name: bytes) -> bytes | None:
    for key, value in response.headers:
        if key.lower() == name:
            return bytes(value)
    return None
