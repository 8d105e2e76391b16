"""`JobStore`, the durable state of every job, and `KeyStore`, who may call.

One contract suite holds for every implementation of each.

Times are the store's own clock (the database's), so machines need not agree. A *lease* is the right
to drive a job until a moment; whoever holds it is named by `owner`. Every method raises
`errors.JobStoreUnavailable` when the store does not answer.
"""

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field, JsonValue

from serve_app import errors
from serve_app.jobs.line import Line
from serve_app.jobs.rules import KeyRules
from serve_app.types import Frozen, Job, JobFailure, JobRequest, JobResult

__all__ = [
    "IDEMPOTENCY_KEY",
    "ApiKey",
    "AuditLog",
    "Deed",
    "Idempotency",
    "JobStore",
    "KeyStore",
    "Lease",
    "Usage",
    "UsageStore",
]

IDEMPOTENCY_KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Idempotency:
    """By what a repeated call is known; it counts within the jobs of one API key."""

    key: str  # chosen by the client
    digest: str  # of what the call asks for
    ttl_s: float = 86_400.0  # seconds after which the key may name another job

    def check(self, digest: str | None) -> None:
        """Compare with the first call that came with the key.

        Raises:
            errors.InvalidRequest: that one asked for something else.
        """
        if not hmac.compare_digest(self.digest, digest or ""):
            text = f"This {IDEMPOTENCY_KEY} was used for a different request."
            raise errors.InvalidRequest(IDEMPOTENCY_KEY, text)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who wants to drive a job, and for how many seconds before it has to be renewed."""

    owner: str
    seconds: float


class JobStore(Protocol):
    """Jobs by integer id. An id says nothing of other jobs, and is given once (`jobs.number`)."""

    async def add(
        self,
        request: JobRequest,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
        lease: Lease | None = None,
        *,
        guests: int = 0,
    ) -> Job:
        """Accept a job, queued, or return the one that came before with the same idempotency.

        With a lease the new job is claimed in the same transaction: it is processing, attempt 1.

        guests: jobs beside `max_open`, for keys that have none open.

        Raises:
            errors.Overloaded: `max_open` jobs are open.
            errors.TooManyOpen: the request's key has as many open jobs as it may, by its own rules
                and by `rules` where it has none. None: no rules at all.
            errors.RateLimited: it sent as many lately.
            errors.MonthlyLimit: its pictures of this month are used up.
            errors.NotAllowed: it may not use the model or a feature.
            errors.InvalidRequest: the idempotency key came with another digest before.
        """
        ...

    async def admit(
        self,
        key_id: str,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
        *,
        guests: int = 0,
    ) -> Job | None:
        """Look, before any work is done, what `add` would say: a job, a refusal, or None.

        Raises as `add` does. It waits for no writer, and nothing is promised by it.
        """
        ...

    async def get(self, job_id: int) -> Job | None:
        """Read a job."""
        ...

    async def ended(self, job_ids: Collection[int]) -> set[int]:
        """Return which of these jobs are no longer open."""
        ...

    async def claim(self, owner: str, lease_s: float, limit: int) -> list[Job]:
        """Take a lease on up to `limit` jobs that are due; `attempts` grows by one.

        Keys take turns by weight and by what they have at work (`fairness.turn`), and the jobs of
        a key by age and priority. Those that were taken are returned oldest first.

        Due are queued jobs whose `not_before` has passed and processing jobs whose lease ran out.
        Two claims never return the same job.
        """
        ...

    async def renew(self, owner: str, lease_s: float, progress: dict[int, float]) -> set[int]:
        """Extend the leases on the jobs that are the keys; store their progress, 0 to 1.

        Returns the ids still held; one that is missing was cancelled, settled or taken over.
        """
        ...

    async def release(
        self, owner: str, job_ids: Sequence[int], delay_s: float = 0.0, *, refund: bool = False
    ) -> None:
        """Return jobs to the queue, due after `delay_s` seconds; jobs not held are left alone.

        With `refund`, the attempt does not count: an outage was to blame, not the job.
        """
        ...

    async def succeed(
        self, owner: str, job_id: int, result: JobResult, webhook_body: str | None = None
    ) -> bool:
        """Settle a held job; False when the lease is not ours any more.

        A body goes to the job's webhook, if it has one: the message is kept if and only if the job
        is settled by this call.
        """
        ...

    async def fail(
        self, owner: str, job_id: int, failure: JobFailure, webhook_body: str | None = None
    ) -> bool:
        """Settle a held job; False when the lease is not ours any more. Body as in `succeed`."""
        ...

    async def cancel(self, job_id: int, webhook_body: str | None = None) -> bool:
        """Settle an open job as cancelled, whoever holds it; False when it was final already.

        Body as in `succeed`.
        """
        ...

    async def count_open(self) -> dict[str, int]:
        """Open (queued or processing) jobs per model id."""
        ...

    async def waiting(self, model_id: str) -> Line:
        """Return the open jobs of a model: those without a known step wait, the others began."""
        ...

    async def turns(self) -> Line:
        """Return how many jobs are at work, and which wait for a driver.

        One that waits for its next attempt is where it will be when that is due.
        """
        ...

    async def secret(self, purpose: str) -> bytes:
        """Derive 32 secret bytes, the same for all processes on this store, for one purpose."""
        ...

    async def oldest_open_s(self) -> float:
        """Seconds since the oldest open job was accepted; 0 when none is open."""
        ...

    async def last_failed(self, limit: int) -> list[Job]:
        """Jobs that failed, the latest first, among the last 1,000 that ended."""
        ...

    async def expire(self, older_than_s: float, limit: int = 1000) -> list[Job]:
        """Remove up to `limit` final jobs finished longer ago; return them."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class ApiKey(Frozen):
    """What is known of a key; the secret is not."""

    id: str = Field(description="owner of jobs")
    name: str = Field(description="given by the operator")
    prefix: str = Field(description="first characters of the secret, to recognise it by")
    created_at: float = Field(description="seconds since the epoch")
    revoked_at: float | None = Field(default=None, description="seconds since the epoch")
    expires_at: float | None = Field(default=None, description="seconds since the epoch")
    old_until: float | None = Field(
        default=None, description="until when the secret before the last rotation works too"
    )
    rules: KeyRules = KeyRules()
    signs: bool = Field(default=False, description="whether it has a webhook secret of its own")


class Usage(Frozen):
    """What the jobs of one key cost on one model in one day, by the database's clock in UTC."""

    day: str = Field(description="such as 2026-11-29")
    key_id: str
    model_id: str
    succeeded: int = Field(default=0, description="jobs")
    failed: int = 0
    cancelled: int = 0
    pictures: int = Field(default=0, description="of the jobs that succeeded, as all below")
    row_steps: int = 0
    device_s: float = 0.0
    stored_bytes: int = 0


class UsageStore(Protocol):
    """Costs of jobs, counted when they are settled; kept when their rows go."""

    async def usage(
        self, month: str, limit: int | None = None, after: tuple[str, str, str] | None = None
    ) -> list[Usage]:
        """List what a month cost, by day, key and model; `month` is such as 2026-11.

        limit: most rows; None: all. after: day, key and model of the row before the first.
        """
        ...

    async def by_model(self, month: str) -> dict[str, Usage]:
        """Add up what each model cost in a month, by its id; `key_id` of the sums is empty."""
        ...

    async def this_month(self) -> str:
        """Return the month that it is by the store's clock."""
        ...


class Deed(Frozen):
    """What an operator did: `key.create`, `model.add`, ... to what has the id `subject`."""

    at: float = Field(description="seconds since the epoch")
    actor: str = Field(description="cli:NAME, admin:ADDRESS, key:ID or service")
    action: str
    subject: str
    detail: dict[str, JsonValue] = Field(default_factory=dict, description="never a secret")


class AuditLog(Protocol):
    """What operators did. Stores write it; nothing changes it."""

    async def deeds(self, limit: int, subject: str | None = None) -> list[Deed]:
        """List what was done, the latest first; only to `subject` where one is named."""
        ...


class KeyStore(Protocol):
    """API keys. Every method raises `errors.JobStoreUnavailable` when the store does not answer."""

    async def create(
        self, name: str, rules: KeyRules | None = None, lifetime_s: float | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; returns it with its secret, which cannot be had again.

        lifetime_s: seconds until it expires; None: never.

        Raises `errors.InvalidRequest` when the name is no storable text.
        """
        ...

    async def verify(self, secret: str) -> str | None:
        """Return the id of the key with this secret; None: none, or it is revoked or expired."""
        ...

    async def list_keys(self, limit: int | None = None, after: str | None = None) -> list[ApiKey]:
        """List keys, also revoked ones, oldest first.

        limit: most of them; None: all. after: id of the key before the first.
        """
        ...

    async def find(self, key_id: str) -> ApiKey | None:
        """Return what is known of a key."""
        ...

    async def change(
        self, key_id: str, rules: KeyRules, lifetime_s: float | None = None
    ) -> ApiKey | None:
        """Change the rules of a key, and its end, so many seconds from now on; None: there is none.

        lifetime_s: None leaves its end as it is; infinite: it does not expire any more.
        """
        ...

    async def rotate(self, key_id: str, overlap_s: float) -> str | None:
        """Draw a new secret for a key, and return it; None when there is none, or it is revoked.

        The secret before works for `overlap_s` seconds more, one that was before it no longer.
        """
        ...

    async def sign_with(self, key_id: str, secret: str | None) -> bool:
        """Sign the webhooks of a key with a secret of its own; None: with those of the settings.

        False when there is no such key, or it is revoked.
        """
        ...

    async def is_live(self, key_id: str) -> bool:
        """Whether there is a key of this id, neither revoked nor expired."""
        ...

    async def revoke(self, key_id: str) -> bool:
        """End a key for good; False when there is none, or it is revoked already."""
        ...
