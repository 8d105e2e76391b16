"""`MemoryKeyStore`: the twin of `SqlKeyStore` in memory."""

import hmac
import time
from collections.abc import Callable

from serve_app.database import codec
from serve_app.database.keys import digest, new_key_id, new_secret, shown_prefix
from serve_app.jobs.protocol import ApiKey

__all__ = ["MemoryKeyStore"]


class MemoryKeyStore:
    """Implements `jobs.protocol.KeyStore`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_hash: dict[str, ApiKey] = {}

    async def create(self, name: str) -> tuple[ApiKey, str]:
        """Make a key; see the protocol."""
        secret = new_secret()
        key = ApiKey(
            id=new_key_id(),
            name=codec.check_text("name", name),
            prefix=shown_prefix(secret),
            created_at=self._clock(),
        )
        self._by_hash[digest(secret) or ""] = key
        return key, secret

    async def verify(self, secret: str) -> str | None:
        """Return the id of the key; see the protocol."""
        hashed = digest(secret) or ""
        for known, key in self._by_hash.items():
            if hmac.compare_digest(known, hashed) and key.revoked_at is None:
                return key.id
        return None

    async def list_keys(self) -> list[ApiKey]:
        """List all keys; see the protocol."""
        return list(self._by_hash.values())

    async def is_live(self, key_id: str) -> bool:
        """Look for a key that is not revoked; see the protocol."""
        return any(key.id == key_id and key.revoked_at is None for key in self._by_hash.values())

    async def revoke(self, key_id: str) -> bool:
        """End a key; see the protocol."""
        for hashed, key in self._by_hash.items():
            if key.id == key_id and key.revoked_at is None:
                revoked = key.model_copy(update={"revoked_at": self._clock()})
                self._by_hash[hashed] = revoked
                return True
        return False
