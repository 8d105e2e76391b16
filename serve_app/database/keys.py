"""API keys: made once, shown once, stored as hashes.

A secret is 256 random bits, so one fast hash is enough: there is no dictionary to try. A lookup by
hash tells an attacker nothing by its time, since he cannot steer the hash of a guess; the final
comparison takes constant time all the same.
"""

import hashlib
import hmac
import re
import secrets

from sqlalchemy import Row, insert, select, update

from serve_app.database.codec import check_text
from serve_app.database.connection import Database, Now, uncancelled
from serve_app.database.schema import api_keys
from serve_app.jobs.protocol import ApiKey

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


@uncancelled
class SqlKeyStore:
    """Implements `jobs.protocol.KeyStore` on the connections of a job store or its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str) -> tuple[ApiKey, str]:
        """Make a key; see the protocol."""
        secret = new_secret()
        row = {
            "id": new_key_id(),
            "name": check_text("name", name),
            "prefix": shown_prefix(secret),
            "hash": digest(secret),
            "created_at": Now(),
        }
        async with self._database.write() as connection:
            new = insert(api_keys).values(row).returning(*_SHOWN)
            return _read((await connection.execute(new)).one()), secret

    async def verify(self, secret: str) -> str | None:
        """Return the id of the key; see the protocol."""
        hashed = digest(secret)
        if hashed is None:
            return None
        find = select(api_keys.c.id, api_keys.c.hash).where(
            api_keys.c.hash == hashed, api_keys.c.revoked_at.is_(None)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(find)).one_or_none()
        if row is None or not hmac.compare_digest(row.hash, hashed):
            return None
        return str(row.id)

    async def list_keys(self) -> list[ApiKey]:
        """List all keys; see the protocol."""
        async with self._database.read() as connection:
            every = select(*_SHOWN).order_by(api_keys.c.created_at, api_keys.c.id)
            return [_read(row) for row in await connection.execute(every)]

    async def is_live(self, key_id: str) -> bool:
        """Look for a key that is not revoked; see the protocol."""
        find = select(api_keys.c.id).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            return await connection.scalar(find) is not None

    async def revoke(self, key_id: str) -> bool:
        """End a key; see the protocol."""
        end = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=Now())
            .returning(api_keys.c.id)
        )
        async with self._database.write() as connection:
            return await connection.scalar(end) is not None


_SHOWN = [column for column in api_keys.c if column.name != "hash"]


def _read(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
