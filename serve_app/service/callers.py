"""`Callers`: whose a key or a token is."""

import time

from serve_app import errors
from serve_app.config import AppConfig
from serve_app.config.http import AuthMode
from serve_app.jobs.protocol import JobStore, KeyStore
from serve_app.service import tokens
from serve_app.service.recent import Recent

__all__ = ["OPEN_KEY_ID", "Callers"]

OPEN_KEY_ID = "open"  # owner of every job when nobody is asked for a key


class Callers:
    """Tells callers apart.

    Args:
        recent: whom this process saw lately.
    """

    def __init__(self, keys: KeyStore, jobs: JobStore, recent: Recent, config: AppConfig) -> None:
        self._keys, self._jobs, self._recent, self._config = keys, jobs, recent, config

    async def issue_token(self, job_id: int, key_id: str) -> str:
        """Make a token that opens the stream of a job for `events.token_ttl_s`."""
        ends_at = int(time.time() + self._config.events.token_ttl_s)
        return tokens.issue(await self._jobs.secret(tokens.PURPOSE), job_id, key_id, ends_at)

    async def read_token(self, job_id: int, token: str) -> str:
        """Return the id of the key that a token is for.

        Raises:
            errors.InvalidKey: it is forged, of another job or old, or its key was revoked.
        """
        secret = await self._jobs.secret(tokens.PURPOSE)
        key_id = tokens.read(secret, job_id, token, time.time())
        if not await self.is_live(key_id):
            raise errors.InvalidKey("the key of the token was revoked")
        return key_id

    async def is_live(self, key_id: str) -> bool:
        """Whether a key that was accepted may still be used."""
        if self._config.auth.mode is AuthMode.OPEN:
            return key_id == OPEN_KEY_ID
        return await self._keys.is_live(key_id)

    async def identify(self, key: str | None) -> str:
        """Return the id of the key's owner.

        Raises:
            errors.InvalidKey: no key, an unknown or a revoked one.
        """
        if self._config.auth.mode is AuthMode.OPEN:
            return OPEN_KEY_ID
        key_id = await self._verify(key) if key else None
        if key_id is None:
            raise errors.InvalidKey()
        return key_id

    async def _verify(self, key: str) -> str | None:
        """Look a key up; while the database does not answer, as it was found lately.

        No work is accepted meanwhile, for that is written there too.
        """
        try:
            key_id = await self._keys.verify(key)
        except errors.JobStoreUnavailable:
            if (key_id := self._recent.key_id(key)) is None:
                raise
            return key_id
        if key_id is not None:
            self._recent.see_key(key, key_id)
        return key_id
