"""`Admission`: who gets a job accepted, and how. Limits, repeats of a call, the gate, the store."""

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial

from serve_app import errors
from serve_app.config import AppConfig, LimitsConfig
from serve_app.config.http import AuthMode
from serve_app.jobs.driver import Driver
from serve_app.jobs.protocol import Idempotency, JobStore
from serve_app.jobs.rate import RateLimiter
from serve_app.jobs.rules import KeyRules
from serve_app.service.gate import Gate
from serve_app.types import Job, JobRequest

__all__ = ["Admission"]


class Admission:
    """One per ingress; the store has the last word, so that bounds hold over all of them."""

    def __init__(self, jobs: JobStore, driver: Driver, config: AppConfig) -> None:
        self._jobs = jobs
        self._driver = driver
        self._ttl_s = config.jobs.idempotency_ttl_s
        self._max_open = config.jobs.max_open
        self._tells_keys_apart = config.auth.mode is AuthMode.KEYS
        self._rules = default_rules(config.limits) if self._tells_keys_apart else None
        self._rate = RateLimiter(config.limits.requests_per_minute)
        self._guests = config.jobs.max_open_guests if self._tells_keys_apart else 0
        self._gate = Gate(jobs, config.jobs.max_open, self._guests)

    async def check_room(self) -> None:
        """Refuse a call of which nothing is known yet, while no job is accepted.

        Raises:
            errors.Overloaded: too many jobs are open.
        """
        await self._gate.check()

    async def admit(self, key_id: str, idempotency: Idempotency | None) -> Job | None:
        """Refuse a call before any work; a repeated one gets the job that it has already.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.RateLimited: this key sends too much, or has too many open jobs.
            errors.MonthlyLimit: its pictures of this month are used up.
            errors.InvalidRequest: the idempotency key came with another request before.
        """
        if idempotency is None:  # else perhaps a repeated call, which no gate may refuse
            await self._gate.check(key_id)
        repeated: Job | None = None
        if idempotency is not None or self._tells_keys_apart:
            with self._estimating(), self._closing(key_id):
                repeated = await self._jobs.admit(
                    key_id,
                    self._max_open,
                    self._rules,
                    self._timed(idempotency),
                    guests=self._guests,
                )
        if repeated is None and idempotency is not None:
            await self._gate.check(key_id)
        return repeated

    async def accept(self, request: JobRequest, idempotency: Idempotency | None) -> Job:
        """Store a job and drive it; raises like `admit`, and where the key may not use something.

        Raises:
            errors.NotAllowed: it may not use the model or a feature.
        """
        add = partial(
            self._jobs.add,
            request,
            self._max_open,
            self._rules,
            self._timed(idempotency),
            guests=self._guests,
        )
        with self._estimating():
            if idempotency is not None:  # perhaps a repeated call, which no gate may refuse
                return await self._driver.accept(add, request.key_id, is_new=False)
            await self._gate.admit(request.key_id)
            with self._closing(request.key_id):
                return await self._driver.accept(add, request.key_id)

    async def count(self, key_id: str) -> None:
        """Count a call of a helper; the store counts the calls that bring jobs.

        Raises:
            errors.RateLimited: this key sends too much.
        """
        if self._tells_keys_apart:
            await self._rate.count(key_id)

    @contextlib.contextmanager
    def _estimating(self) -> Iterator[None]:
        """Raise a refusal for too many open jobs with the time until one is likely to end."""
        try:
            yield
        except errors.TooManyOpen as exc:
            wait_s = self._driver.eta.next_end_s(exc.limit, exc.num_open)
            raise errors.TooManyOpen(exc.limit, exc.num_open, wait_s) from None

    @contextlib.contextmanager
    def _closing(self, key_id: str) -> Iterator[None]:
        """Close the gate to a key for which the store has no place."""
        try:
            yield
        except errors.Overloaded:
            self._gate.close(key_id)
            raise

    def _timed(self, idempotency: Idempotency | None) -> Idempotency | None:
        return idempotency and dataclasses.replace(idempotency, ttl_s=self._ttl_s)


def default_rules(limits: LimitsConfig) -> KeyRules:
    """Return what holds for keys that have no bounds of their own."""
    return KeyRules(
        max_open=limits.max_open_per_key, requests_per_minute=limits.requests_per_minute or None
    )
