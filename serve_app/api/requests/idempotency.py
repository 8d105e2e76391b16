"""`read`: the `Idempotency-Key` header of a call, with a digest of what the call asks for.

The digest is taken from the fields as they were sent: what is drawn later (the seed, names of
files) differs from repeat to repeat.

Source: draft-ietf-httpapi-idempotency-key-header-07, sections 2.2 and 2.6.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping

from pydantic import JsonValue
from starlette.requests import Request

from serve_app import errors
from serve_app.api.requests.body import Fields, digested
from serve_app.jobs.protocol import IDEMPOTENCY_KEY, Idempotency

__all__ = ["of_call", "read"]

_GOOD = re.compile(r"[\x21-\x7e]{1,255}")
_NOT_ASKED = frozenset({"key"})  # the secret; whose call it is, is known from it by now


async def of_call(request: Request, fields: Fields) -> Idempotency | None:
    """Read the header of a call, beside the event loop if there is one; raises as `read`."""
    given, path = request.headers.get(IDEMPOTENCY_KEY), request.scope["path"]
    if given is None:
        return None
    # In a thread: the digest of all that the call asks for takes its time.
    return await asyncio.to_thread(lambda: read(given, path, digested(fields)))


def read(header: str | None, path: str, fields: Mapping[str, JsonValue]) -> Idempotency | None:
    """Return what identifies repeats of a call; None if the caller did not ask for it.

    Args:
        header: value of `Idempotency-Key`.
        path: of the call, since equal fields ask another one for something else.
        fields: of the body.

    Raises:
        errors.InvalidRequest: the value is too long or holds more than visible ASCII.
    """
    key = (header or "").strip()
    if not key:
        return None
    if not _GOOD.fullmatch(key):
        text = f"The {IDEMPOTENCY_KEY} header takes 1 to 255 visible ASCII characters."
        raise errors.InvalidRequest(IDEMPOTENCY_KEY, text)
    asked = {name: value for name, value in fields.items() if name not in _NOT_ASKED}
    text = json.dumps([path.rstrip("/"), asked], sort_keys=True, separators=(",", ":"))
    return Idempotency(key, hashlib.sha256(text.encode()).hexdigest())
