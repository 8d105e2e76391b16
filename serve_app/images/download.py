"""Fetches pictures that clients name by URL; what goes wrong becomes a message for the client.

The network side, with its guards, is `serve_app.net`.
"""

import ssl
from types import TracebackType
from typing import Self

import structlog

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.net import (
    BadStatus,
    GuardedClient,
    NetFailure,
    Policy,
    Refused,
    Resolver,
    TooLarge,
    TooManyRedirects,
    TooSlow,
    Unreachable,
)

__all__ = ["Downloader"]

_log = structlog.get_logger()


class Downloader:
    """Downloads under the limits of the configuration. One per event loop.

    Args:
        config: limits and allowed hosts.
        resolver: replaces the machine's resolver, in tests.
        ssl_context: replaces the default certificate authorities.
    """

    def __init__(
        self,
        config: ImagesConfig,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        policy = Policy(
            allowed_hosts=config.allowed_hosts,
            allowed_ports=config.allowed_ports,
            max_redirects=config.max_redirects,
            timeout_s=config.download_timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            max_bytes=config.max_bytes,
        )
        self._client = GuardedClient(policy, resolver, ssl_context)

    async def fetch(self, field: str, url: str) -> bytes:
        """Download a file. May be cancelled.

        Args:
            field: request field, named in errors.
            url: as the client sent it.

        Raises:
            errors.InvalidImage: the URL is not acceptable or the file could not be had.
        """
        try:
            return await self._client.get(url)
        except NetFailure as exc:
            # The URL stays out of the log: its query may hold the client's signature.
            _log.info("download_failed", field=field, error=type(exc).__name__, detail=str(exc))
            message = f"Unable to fetch image from provided URL ({field}): {_reason(exc)}."
            raise errors.InvalidImage(field, message) from exc

    async def aclose(self) -> None:
        """Close connections that are still in use."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _reason(failure: NetFailure) -> str:
    """Describe what happened without revealing any address."""
    match failure:
        case Refused():
            reason = failure.reason
        case TooManyRedirects():
            reason = f"more than {failure.limit} redirects"
        case BadStatus():
            reason = f"the server answered with status {failure.status}"
        case TooLarge():
            reason = f"the file is over {failure.limit_bytes} bytes"
        case TooSlow():
            reason = f"the download took longer than {failure.limit_s:g} s"
        case Unreachable():
            # One sentence for both: telling them apart would map our inside by name.
            reason = "the host cannot be reached or its address is not allowed"
        case _:
            reason = "the server's reply was broken or incomplete"
    return reason
