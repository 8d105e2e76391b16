"""`Arrival`: how long headers may be, how large a body, and how long it may take to arrive.

It also sees to it that no answer leaves an unread body behind: the server would go on reading from
a client that sends a byte now and then, for as long as that likes.
"""

import asyncio
import contextlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import errors
from serve_app.api.replies import wire
from serve_app.config import HttpConfig

__all__ = ["Arrival"]

_OVERLOADED_S = 5.0  # until some of the bodies have arrived


class _Arriving:
    """All bodies that have not arrived to their ends, and how many bytes there are of each."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[_Body, int] = {}
        self._total = 0

    def add(self, body: "_Body", size: int) -> None:
        """Count a piece. Where all are too much the largest body goes, of equal ones the newest.

        Not simply the one that comes last: a few clients that stay just below the end of their
        large bodies would have those of all others refused.
        """
        self._sizes[body] = self._sizes.get(body, 0) + size
        self._total += size
        while self._total > self._max_bytes:
            largest = max(reversed(self._sizes), key=self._sizes.__getitem__)
            self.forget(largest)
            largest.refuse()

    def forget(self, body: "_Body") -> None:
        """Count a body no longer: it is there, or nobody wants it."""
        self._total -= self._sizes.pop(body, 0)


class Arrival:
    """Refuses calls by their headers, and bodies while they arrive.

    An answer that comes before the end of the body waits for the rest, which is dropped: so the
    client can read the answer and use the connection again. To a body that is too large or too slow
    the answer goes at once, and closes the connection; not before the client had time to read it,
    since closing a connection on which data comes in takes back what was sent last.
    """

    def __init__(self, app: ASGIApp, http: HttpConfig) -> None:
        self._app = app
        self._http = http
        self._arriving = _Arriving(http.max_arriving_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on to the app, or answer it in the app's place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self._http, self._arriving)
        is_closing = False

        async def send_after_body(message: Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start":
                if not body.is_over:
                    await body.drop()
                is_closing = not body.has_ended
                if is_closing:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif is_closing and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.drop()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        refusal = self._refusal(scope, body)
        app = self._app
        if refusal is not None:
            app = wire.respond(refusal, scope, self._http)
        try:
            await app(scope, body.receive, send_after_body)
        finally:
            self._arriving.forget(body)

    def _refusal(self, scope: Scope, body: "_Body") -> errors.DreamserveError | None:
        size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._http.max_header_bytes:
            return errors.HeadersTooLarge(self._http.max_header_bytes)
        return errors.BodyTooLarge(self._http.max_body_bytes) if body.is_over else None


class _Body:
    """One body on its way in.

    has_ended: nothing of it is to come. is_over: it is larger than a limit, or says so.
    """

    def __init__(
        self, scope: Scope, receive: Receive, http: HttpConfig, arriving: _Arriving
    ) -> None:
        self._receive = receive
        self._http = http
        self._arriving = arriving
        self._num_bytes = 0
        self._is_refused = False
        self._wait: asyncio.Timeout | None = None
        self._deadline = asyncio.get_running_loop().time() + http.body_timeout_s
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        digits = declared.lstrip("0") if declared.isdecimal() else ""
        self.has_ended = not digits and "transfer-encoding" not in headers
        self.is_over = len(digits) > 18 or int(digits or 0) > http.max_body_bytes

    async def receive(self) -> Message:
        """Receive the next piece, if it is in time and within the limits.

        Raises:
            errors.BodyTooLarge: over `max_body_bytes`.
            errors.BodyTooSlow: over `body_timeout_s`.
            errors.Overloaded: the largest where all are over `max_arriving_bytes`.
        """
        try:
            message = await self._next()
        except errors.BodyTooSlow:
            self._check()  # it was not, then
            raise
        self._check()
        size = len(message.get("body", b""))
        self._num_bytes += size
        if self._num_bytes > self._http.max_body_bytes:
            self.is_over = True
            raise errors.BodyTooLarge(self._http.max_body_bytes)
        if self.has_ended:
            self._arriving.forget(self)
        else:
            self._arriving.add(self, size)
            self._check()
        return message

    def refuse(self) -> None:
        """Make `receive` raise `errors.Overloaded`, at once if it waits for more."""
        self._is_refused = self.is_over = True
        if self._wait is not None and not self._wait.expired():
            self._wait.reschedule(asyncio.get_running_loop().time())

    def _check(self) -> None:
        if self._is_refused:
            raise errors.Overloaded(_OVERLOADED_S)

    async def drop(self) -> None:
        """Receive and drop the rest, for as long as it may take."""
        self._arriving.forget(self)
        left = self._http.max_body_bytes
        with contextlib.suppress(errors.BodyTooSlow):
            while not self.has_ended and left > 0:
                left -= len((await self._next()).get("body", b""))

    async def _next(self) -> Message:
        if self.has_ended:  # what comes now is the end of the connection
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline) as self._wait:
                message = await self._receive()
        except TimeoutError:
            raise errors.BodyTooSlow(self._http.body_timeout_s) from None
        except Exception:  # Ray's, when the client left while Serve's proxy waited for more
            message = {"type": "http.disconnect"}
        finally:
            self._wait = None
        self.has_ended = not message.get("more_body", False)
        return message
