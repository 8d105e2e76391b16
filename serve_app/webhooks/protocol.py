"""What the delivery of webhooks needs: an `Outbox` to take messages from and a `Poster`.

The outbox is implemented in `serve_app.jobs`, where messages are written in the transaction that
settles their job. Every `Outbox` method raises `errors.JobStoreUnavailable` when the store does not
answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

__all__ = ["Backlog", "DeliveryState", "Message", "Outbox", "Poster", "Reply"]


class DeliveryState(StrEnum):
    """Life of a message: pending -> delivered | failed."""

    PENDING = "pending"  # will be sent, or sent again
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # will not be tried again


@dataclass(frozen=True, slots=True)
class Message:
    """One webhook message. `id` is the same over all attempts: receivers drop repeats by it."""

    id: str
    job_id: int
    url: str
    body: str
    attempts: int  # that have failed so far
    secret: str | None = field(default=None, repr=False)  # of its key; None: those of the settings
    traceparent: str = ""  # of the call that its job came by; empty: there are no traces


@dataclass(frozen=True, slots=True)
class Backlog:
    """Messages that are to be sent.

    pending: all of them, those that wait for their next attempt too. overdue_s: seconds since the
    longest due of those that nobody holds became due; 0 when none is.
    """

    pending: int
    overdue_s: float


class Outbox(Protocol):
    """Messages to send. A lease on one ends like that on a job: by the store's own clock."""

    async def claim(self, owner: str, lease_s: float, limit: int) -> list[Message]:
        """Take a lease on up to `limit` messages that are due, the longest due first.

        Two claims never return the same message while its lease lasts. A sender that dies lets it
        run out; the attempt does not count then.
        """
        ...

    async def reschedule(self, owner: str, message_id: str, delay_s: float) -> bool:
        """Count a failed attempt and try again after `delay_s`; False when it is not held."""
        ...

    async def settle(self, owner: str, message_id: str, state: DeliveryState) -> bool:
        """Count the last attempt and make a message final; False when it is not held."""
        ...

    async def state_of(self, job_id: int) -> DeliveryState | None:
        """Return the delivery state of a job's webhook; None if it has none."""
        ...

    async def backlog(self) -> Backlog:
        """Return how much is to be sent, and whether senders keep up."""
        ...

    async def expire(self, older_than_s: float, limit: int = 1000) -> int:
        """Remove up to `limit` final messages finished longer ago; return how many."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answered."""

    status: int
    retry_after: str | None = None  # the header as it came


class Poster(Protocol):
    """Sends one HTTP request to an address that a client named."""

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """POST a body; redirects are not followed, the reply's body is not read.

        Raises:
            net.Refused: the URL itself is not acceptable, now or later.
            net.NetFailure: no answer this time.
        """
        ...
