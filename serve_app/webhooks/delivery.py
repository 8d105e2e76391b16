"""`Sender`: takes due messages from the outbox, posts them and writes down what came of it.

At least once: a message is final only after its receiver answered. A sender that dies in between
lets its lease run out, and the message is sent again with the same id. One runs in the janitor;
more would do no harm.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from serve_app import errors
from serve_app.background import Background
from serve_app.net import NetFailure, Refused
from serve_app.telemetry import tracing
from serve_app.webhooks.protocol import DeliveryState, Message, Outbox, Poster, Reply
from serve_app.webhooks.retry import GIVE_UP, SCHEDULE_S, Verdict, judge
from serve_app.webhooks.signing import Signer

__all__ = ["Limits", "Sender"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one sender.

    Args:
        timeout_s: seconds for one attempt; 15 to 30 by the specification.
        lease_s: seconds until the message of a dead sender is sent by another one.
        max_in_flight: attempts at a time.
        poll_s: seconds between looks at the outbox.
        schedule_s: seconds before each attempt; a message fails after the last one.
    """

    timeout_s: float = 20.0
    lease_s: float = 60.0
    max_in_flight: int = 32
    poll_s: float = 1.0
    schedule_s: tuple[float, ...] = SCHEDULE_S

    def __post_init__(self) -> None:
        if self.lease_s <= self.timeout_s:
            raise ValueError("lease_s must be longer than timeout_s, or messages are sent twice")


class Sender:
    """Delivers webhooks on the running event loop.

    Args:
        outbox: holds the messages.
        poster: reaches the receivers.
        signer: makes the headers.
        limits: bounds.
        clock: seconds since the epoch, for the time in the signature.
        spread: draws 0 to 1 for the jitter of delays.
    """

    def __init__(
        self,
        outbox: Outbox,
        poster: Poster,
        signer: Signer,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.time,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.owner = f"sender-{uuid.uuid4()}"
        self._outbox = outbox
        self._poster = poster
        self._signer = signer
        self._limits = limits or Limits()
        self._clock = clock
        self._spread = spread
        self._in_flight = Background()

    async def run(self) -> None:
        """Deliver for ever; when cancelled, what is in flight is left to its lease."""
        try:
            while True:
                await self._start_safely()
                await asyncio.sleep(self._limits.poll_s)
        finally:
            await self._in_flight.cancel()

    async def deliver_due(self) -> int:
        """Make one attempt for each message that is due and has a place; return how many.

        Raises:
            errors.JobStoreUnavailable: the outbox does not answer.
        """
        num_started = await self._start()
        await self._in_flight.wait()
        return num_started

    async def deliver(self, message: Message) -> DeliveryState:
        """Make one attempt for a message that this sender holds.

        Raises:
            errors.JobStoreUnavailable: what came of it could not be written; it is sent again.
        """
        caller = tracing.carried(message.traceparent)
        with structlog.contextvars.bound_contextvars(job_id=message.job_id, **caller):
            verdict = await self._attempt(message)
        if verdict.state is DeliveryState.PENDING:
            await self._outbox.reschedule(self.owner, message.id, verdict.delay_s)
        else:
            await self._outbox.settle(self.owner, message.id, verdict.state)
        return verdict.state

    async def _attempt(self, message: Message) -> Verdict:
        """Post a message and judge the answer. The URL stays out of the log: it may be secret."""
        attempts = message.attempts + 1
        log = _log.bind(message_id=message.id, attempt=attempts)
        reply = None
        try:
            with tracing.span("webhook", "client", attempt=attempts) as marks:
                reply = await self._post(message)
                marks.update(_answered(reply))
            log = log.bind(status=reply.status)
        except Refused as exc:
            log.warning("webhook_refused", reason=exc.reason)
            return GIVE_UP
        except NetFailure as exc:
            log = log.bind(reason=type(exc).__name__)
        except TimeoutError:
            log = log.bind(reason="TimeoutError")
        schedule_s = self._limits.schedule_s
        verdict = judge(reply, attempts, self._clock(), self._spread(), schedule_s)
        log.info("webhook_attempted", state=verdict.state, delay_s=round(verdict.delay_s, 1))
        return verdict

    async def _post(self, message: Message) -> Reply:
        signer = self._signer if message.secret is None else Signer([message.secret])
        headers = signer.headers(message.id, int(self._clock()), message.body)
        headers["content-type"] = "application/json"
        headers |= tracing.carried(tracing.current())
        async with asyncio.timeout(self._limits.timeout_s):
            return await self._poster.post(message.url, message.body.encode(), headers)

    async def _start(self) -> int:
        """Claim as many messages as there are places and start on them."""
        num_free = self._limits.max_in_flight - len(self._in_flight)
        if num_free <= 0:
            return 0
        messages = await self._outbox.claim(self.owner, self._limits.lease_s, num_free)
        for message in messages:
            self._in_flight.start(self._deliver_safely(message))
        return len(messages)

    async def _start_safely(self) -> None:
        try:
            await self._start()
        except errors.JobStoreUnavailable as exc:
            _log.warning("outbox_unavailable", reason=str(exc))

    async def _deliver_safely(self, message: Message) -> None:
        try:
            await self.deliver(message)
        except errors.JobStoreUnavailable as exc:
            _log.warning("webhook_outcome_lost", message_id=message.id, reason=str(exc))
        except Exception:  # a slip in one delivery must not end all others; the lease runs out
            _log.exception("webhook_delivery_broke", message_id=message.id)


def _answered(reply: Reply) -> dict[str, str | int]:
    """Name what a span says of an answer, by OpenTelemetry's conventions."""
    status: dict[str, str | int] = {"http.response.status_code": reply.status}
    return status | ({} if reply.status < 400 else {"error.type": str(reply.status)})
