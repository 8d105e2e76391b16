"""`MemoryKeyStore`: the twin of `SqlKeyStore` in memory."""

import math
import time
from collections.abc import Callable

from serve_app.database import codec
from serve_app.database.keys import digest, new_key_id, new_secret, shown_prefix
from serve_app.jobs.protocol import ApiKey
from serve_app.jobs.rules import KeyRules

__all__ = ["MemoryKeyStore"]


class MemoryKeyStore:
    """Implements `jobs.protocol.KeyStore`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys: dict[str, ApiKey] = {}
        self._ids: dict[str, str] = {}  # by hash
        self._old: dict[str, str] = {}
        self.webhook_secrets: dict[str, str] = {}

    async def create(
        self, name: str, rules: KeyRules | None = None, lifetime_s: float | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; see the protocol."""
        secret = new_secret()
        key = ApiKey(
            id=new_key_id(),
            name=codec.check_text("name", name),
            prefix=shown_prefix(secret),
            created_at=self._clock(),
            expires_at=None if lifetime_s is None else self._clock() + lifetime_s,
            rules=rules or KeyRules(),
        )
        self._keys[key.id] = key
        self._ids[digest(secret) or ""] = key.id
        return key, secret

    async def verify(self, secret: str) -> str | None:
        """Return the id of the key; see the protocol."""
        hashed, now = digest(secret) or "", self._clock()
        key = self._keys.get(self._ids.get(hashed, ""))
        if key is None:
            key = self._keys.get(self._old.get(hashed, ""))
            if key is None or (key.old_until or 0.0) <= now:
                return None
        return key.id if self._may_be_used(key) else None

    async def find(self, key_id: str) -> ApiKey | None:
        """Return what is known of a key; see the protocol."""
        return self._keys.get(codec.check_text("id", key_id))

    async def change(
        self, key_id: str, rules: KeyRules, lifetime_s: float | None = None
    ) -> ApiKey | None:
        """Change the rules of a key; see the protocol."""
        values: dict[str, object] = {"rules": rules}
        if lifetime_s is not None:
            end = None if math.isinf(lifetime_s) else self._clock() + lifetime_s
            values["expires_at"] = end
        return self._change(key_id, values)

    async def rotate(self, key_id: str, overlap_s: float) -> str | None:
        """Draw a new secret for a key; see the protocol."""
        secret = new_secret()
        values = {"prefix": shown_prefix(secret), "old_until": self._clock() + overlap_s}
        if self._change(key_id, values) is None:
            return None
        before = {hashed: owner for hashed, owner in self._ids.items() if owner == key_id}
        self._old = {hashed: owner for hashed, owner in self._old.items() if owner != key_id}
        self._old |= before
        for hashed in before:
            del self._ids[hashed]
        self._ids[digest(secret) or ""] = key_id
        return secret

    async def sign_with(self, key_id: str, secret: str | None) -> bool:
        """Sign the webhooks of a key with a secret of its own; see the protocol."""
        self.webhook_secrets.pop(key_id, None)
        if secret is not None:
            self.webhook_secrets[key_id] = secret
        return self._change(key_id, {"signs": secret is not None}) is not None

    def rules_of(self, key_id: str) -> KeyRules:
        """Return the rules of a key; none where there is no such key."""
        key = self._keys.get(key_id)
        return KeyRules() if key is None else key.rules

    async def list_keys(self, limit: int | None = None, after: str | None = None) -> list[ApiKey]:
        """List keys; see the protocol."""
        ids = sorted(self._keys, key=lambda key_id: (self._keys[key_id].created_at, key_id))
        begin = 0
        if after is not None:
            begin = ids.index(after) + 1 if after in ids else len(ids)
        return [self._keys[key_id] for key_id in ids[begin:]][:limit]

    async def is_live(self, key_id: str) -> bool:
        """Look for a key that may be used; see the protocol."""
        key = self._keys.get(key_id)
        return key is not None and self._may_be_used(key)

    async def revoke(self, key_id: str) -> bool:
        """End a key; see the protocol."""
        return self._change(key_id, {"revoked_at": self._clock()}) is not None

    def _may_be_used(self, key: ApiKey) -> bool:
        is_over = key.expires_at is not None and key.expires_at <= self._clock()
        return not is_over and key.revoked_at is None

    def _change(self, key_id: str, values: dict[str, object]) -> ApiKey | None:
        key = self._keys.get(key_id)
        if key is None or key.revoked_at is not None:
            return None
        self._keys[key_id] = key.model_copy(update=values)
        return self._keys[key_id]
