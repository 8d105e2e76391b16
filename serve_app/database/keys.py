"""API keys: made once, shown once, stored as hashes.

A secret is 256 random bits, so one fast hash is enough: there is no dictionary to try. A lookup by
hash tells an attacker nothing by its time, since he cannot steer the hash of a guess; the final
comparison takes constant time all the same.
"""

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Mapping

from sqlalchemy import Connection, Row, bindparam, insert, or_, select, tuple_, update
from sqlalchemy.sql.dml import ReturningUpdate

from serve_app.database.audit import note
from serve_app.database.codec import check_text, dump, load
from serve_app.database.connection import Now
from serve_app.database.schema import api_keys
from serve_app.database.transaction import SqlStore, reads, writes
from serve_app.jobs.protocol import ApiKey
from serve_app.jobs.rules import KeyRules

__all__ = ["SqlKeyStore", "digest", "new_key_id", "new_secret", "shown_prefix"]

_SECRET = re.compile(r"sd_live_[A-Za-z0-9_-]{43}")
_SHOWN_CHARS = 12  # of the secret, to tell keys apart by eye: 24 of 256 bits


def new_secret() -> str:
    """Draw a secret of 256 bits."""
    return f"sd_live_{secrets.token_urlsafe(32)}"


def new_key_id() -> str:
    """Draw the id that jobs name their owner by."""
    return f"key_{secrets.token_hex(8)}"


def shown_prefix(secret: str) -> str:
    """The part of a secret that lists show."""
    return secret[:_SHOWN_CHARS]


def digest(secret: str) -> str | None:
    """Hash a secret that a client sent; None when it cannot be one of ours."""
    if not _SECRET.fullmatch(secret):
        return None
    return hashlib.sha256(secret.encode()).hexdigest()


class SqlKeyStore(SqlStore):
    """Implements `jobs.protocol.KeyStore` on the connections of a job store or its own."""

    @writes()
    def create(
        self,
        connection: Connection,
        name: str,
        rules: KeyRules | None = None,
        lifetime_s: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; see the protocol."""
        secret = new_secret()
        row = {
            "id": new_key_id(),
            "name": check_text("name", name),
            "prefix": shown_prefix(secret),
            "hash": digest(secret),
            "created_at": Now(),
            "rules": None if rules is None else dump(rules),
            "expires_at": None if lifetime_s is None else Now() + lifetime_s,
        }
        new = insert(api_keys).values(row).returning(*_SHOWN)
        key = _read(connection.execute(new).one())
        note(connection, "key.create", key.id, {"name": name, **_told(key)})
        return key, secret

    async def verify(self, secret: str) -> str | None:
        """Return the id of the key; see the protocol."""
        hashed = digest(secret)
        return None if hashed is None else await self._find(hashed)

    @reads()
    def _find(self, connection: Connection, hashed: str) -> str | None:
        row = connection.execute(_FIND, {"hashed": hashed}).one_or_none()
        if row is None:
            return None
        known = row.hash if hmac.compare_digest(row.hash, hashed) else row.old_hash
        return str(row.id) if hmac.compare_digest(known or "", hashed) else None

    @reads()
    def find(self, connection: Connection, key_id: str) -> ApiKey | None:
        """Return what is known of a key; see the protocol."""
        one = select(*_SHOWN).where(api_keys.c.id == check_text("id", key_id))
        row = connection.execute(one).one_or_none()
        return None if row is None else _read(row)

    @writes()
    def change(
        self, connection: Connection, key_id: str, rules: KeyRules, lifetime_s: float | None = None
    ) -> ApiKey | None:
        """Change the rules of a key; see the protocol."""
        values: dict[str, object] = {"rules": dump(rules)}
        if lifetime_s is not None:
            values["expires_at"] = None if math.isinf(lifetime_s) else Now() + lifetime_s
        row = connection.execute(_change(key_id, values)).one_or_none()
        if row is None:
            return None
        key = _read(row)
        note(connection, "key.set", key_id, _told(key))
        return key

    @writes()
    def rotate(self, connection: Connection, key_id: str, overlap_s: float) -> str | None:
        """Draw a new secret for a key; see the protocol."""
        secret = new_secret()
        values = {
            "old_hash": api_keys.c.hash,
            "old_until": Now() + overlap_s,
            "hash": digest(secret),
            "prefix": shown_prefix(secret),
        }
        if connection.execute(_change(key_id, values)).one_or_none() is None:
            return None
        note(connection, "key.rotate", key_id, {"overlap_s": overlap_s})
        return secret

    @writes()
    def sign_with(self, connection: Connection, key_id: str, secret: str | None) -> bool:
        """Sign the webhooks of a key with a secret of its own; see the protocol."""
        changed = connection.execute(_change(key_id, {"webhook_secret": secret}))
        is_changed = changed.one_or_none() is not None
        if is_changed:
            note(connection, "key.sign", key_id, {"own_secret": secret is not None})
        return is_changed

    @reads()
    def list_keys(
        self, connection: Connection, limit: int | None = None, after: str | None = None
    ) -> list[ApiKey]:
        """List keys; see the protocol."""
        order = (api_keys.c.created_at, api_keys.c.id)
        some = select(*_SHOWN).order_by(*order).limit(limit)
        if after is not None:
            last = api_keys.c.id == check_text("after", after)
            made_at = select(api_keys.c.created_at).where(last).scalar_subquery()
            some = some.where(tuple_(*order) > tuple_(made_at, after))
        return [_read(row) for row in connection.execute(some)]

    @reads()
    def is_live(self, connection: Connection, key_id: str) -> bool:
        """Look for a key that may be used; see the protocol."""
        find = select(api_keys.c.id).where(api_keys.c.id == key_id, *_MAY_BE_USED)
        return connection.scalar(find) is not None

    @writes()
    def revoke(self, connection: Connection, key_id: str) -> bool:
        """End a key; see the protocol."""
        ended = connection.execute(_change(key_id, {"revoked_at": Now()}))
        is_ended = ended.one_or_none() is not None
        if is_ended:
            note(connection, "key.revoke", key_id)
        return is_ended


_SHOWN = [column for column in api_keys.c if column.name not in ("hash", "old_hash")]
_IS_ITS = or_(
    api_keys.c.hash == bindparam("hashed"),
    (api_keys.c.old_hash == bindparam("hashed")) & (api_keys.c.old_until > Now()),
)
_MAY_BE_USED = (
    api_keys.c.revoked_at.is_(None),
    or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > Now()),
)
_FIND = select(api_keys.c.id, api_keys.c.hash, api_keys.c.old_hash).where(_IS_ITS, *_MAY_BE_USED)


def _change(key_id: str, values: Mapping[str, object]) -> ReturningUpdate[tuple[object, ...]]:
    """Change a key that is not revoked."""
    return (
        update(api_keys)
        .where(api_keys.c.id == check_text("id", key_id), api_keys.c.revoked_at.is_(None))
        .values(values)
        .returning(*_SHOWN)
    )


def _told(key: ApiKey) -> dict[str, object]:
    rules = key.rules.model_dump(mode="json", exclude_none=True)
    return {"rules": rules, "expires_at": key.expires_at}


def _read(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        expires_at=row.expires_at,
        old_until=row.old_until,
        rules=KeyRules() if row.rules is None else load(KeyRules, row.rules),
        signs=row.webhook_secret is not None,
    )
