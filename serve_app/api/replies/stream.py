"""`PieceStream`, `EventStream`: answers that are sent as they are made, the latter in events.

A client that reads nothing is dropped.

Source: WHATWG HTML, section 9.2 "Server-sent events".
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

import orjson
import structlog
from pydantic import JsonValue
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app import errors

__all__ = ["HEARTBEAT", "EventStream", "PieceStream", "event"]

HEARTBEAT = b": heartbeat\n\n"
"""A comment: clients ignore it, and what lies between sees that the connection lives."""

_HEADERS = {"X-Accel-Buffering": "no"}  # nginx and its like would keep events until there are many

_log = structlog.get_logger()


def event(name: str, data: JsonValue, mark: str = "") -> bytes:
    """Write one event; `mark` is what a client that reconnects sends back."""
    head = f"id: {mark}\n" if mark else ""
    return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


class PieceStream(Response):
    """Sends what the generator yields as it comes, and closes the generator when it is over.

    The head is sent after the first piece was made: what fails until then has an answer of its
    own, and closing a generator that was never begun would run no `finally` of it. What fails
    later ends the connection without the end of the answer.

    send_timeout_s: seconds that a piece may wait for a client who does not read.
    """

    media_type = "application/json"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        send_timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]  # of a body that is complete
        self._pieces = pieces
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send until the end, or until the client has gone."""
        async with contextlib.aclosing(self._pieces):
            first = await anext(self._pieces)
            head = {"type": "http.response.start", "status": self.status_code}
            await send(head | {"headers": self.raw_headers})
            sending = asyncio.create_task(self._send_all(first, send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, first: bytes, send: Send) -> None:
        try:
            await self._send_piece(first, send)
            async for piece in self._pieces:
                await self._send_piece(piece, send)
        except _NotRead:
            _log.info("stream_dropped", unread_s=self._send_timeout_s)
            return  # without an end: the server closes the connection
        except errors.DreamserveError as exc:
            _log.warning("stream_broken", code=exc.code, reason=str(exc))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_piece(self, piece: bytes, send: Send) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError as exc:
            raise _NotRead from exc


class EventStream(PieceStream):
    """One of events."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes, None], send_timeout_s: float) -> None:
        super().__init__(pieces, send_timeout_s, _HEADERS)


class _NotRead(Exception):
    """A client has not read a piece in time."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
