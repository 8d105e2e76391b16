"""HTTP to addresses that clients of this service name, under limits of size, time and hops.

Built on httpcore2's connection pool and httpx2's URLs, without httpx2's client: that one reads
proxy variables, keeps cookies and unpacks bodies, none of which may happen here. Bodies are
counted as they come off the wire and never unpacked.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpcore2
import httpx2

from serve_app.net.failure import (
    BadReply,
    BadStatus,
    TooLarge,
    TooManyRedirects,
    TooSlow,
    Unreachable,
)
from serve_app.net.judge import MAX_URL_CHARS, Judge, Policy
from serve_app.net.transport import GuardedBackend, Resolver, SystemResolver

__all__ = ["GuardedClient", "PostReply"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


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
        self._judge = Judge(policy)
        self._system: SystemResolver | None = None
        if resolver is None:
            resolver = self._system = SystemResolver()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context or httpx2.create_ssl_context(trust_env=False),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=GuardedBackend(resolver, self._judge.allowed_hosts),
        )

    async def get(self, url: str) -> bytes:
        """Fetch a body whole. Redirects are followed.

        Raises:
            NetFailure: the class says why; see `failure`.
        """
        async with self._limits():
            target = self._judge.read(url)
            for _ in range(self._policy.max_redirects + 1):
                async with self._send("GET", target, {}, None) as response:
                    if response.status == 200:
                        return await self._read(response)
                    if response.status not in _REDIRECTS:
                        raise BadStatus(response.status)
                    target = self._judge.read(_next_url(target, response))
            raise TooManyRedirects(self._policy.max_redirects)

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> PostReply:
        """Send a body; redirects are not followed, the reply's body is not read.

        Raises:
            NetFailure: the class says why; see `failure`.
        """
        async with (
            self._limits(),
            self._send("POST", self._judge.read(url), headers, content) as response,
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


def _next_url(current: httpx2.URL, response: httpcore2.Response) -> httpx2.URL:
    location = _header(response, b"location")
    if location is None or len(location) > MAX_URL_CHARS:
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
