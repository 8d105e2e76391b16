"""Tokens: what opens the stream of one job for a while, where a client cannot send its key.

A browser's `EventSource` sends no headers, and a key has no place in an address. A token names the
job, the key's id and when it ends, under an HMAC whose secret all ingresses of a database share.
"""

import hmac
import re

from serve_app import errors

__all__ = ["PURPOSE", "issue", "read"]

PURPOSE = "tokens of event streams"
_TOKEN = re.compile(r"([A-Za-z0-9_]{1,64})\.(\d{1,12})\.([0-9a-f]{64})", re.ASCII)


def issue(secret: bytes, job_id: int, key_id: str, ends_at: int) -> str:
    """Make a token; `ends_at` in seconds since the epoch."""
    return f"{key_id}.{ends_at}.{_signature(secret, job_id, key_id, ends_at)}"


def read(secret: bytes, job_id: int, token: str, now: float) -> str:
    """Return the id of the key that the token was made for.

    Raises:
        errors.InvalidKey: it is none of ours, of another job, or has ended.
    """
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise errors.InvalidKey("no token")
    key_id, ends_at = found[1], int(found[2])
    if not hmac.compare_digest(_signature(secret, job_id, key_id, ends_at), found[3]):
        raise errors.InvalidKey("a token of another job, or forged")
    if ends_at < now:
        raise errors.InvalidKey("a token that has ended")
    return key_id


def _signature(secret: bytes, job_id: int, key_id: str, ends_at: int) -> str:
    return hmac.digest(secret, f"{job_id}.{key_id}.{ends_at}".encode(), "sha256").hex()
