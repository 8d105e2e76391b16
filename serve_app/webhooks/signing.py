"""Signatures of webhook messages by the Standard Webhooks scheme, HMAC-SHA256.

Source: Standard Webhooks 1.0.0, github.com/standard-webhooks/standard-webhooks, spec.
"""

import base64
import binascii
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

__all__ = ["Signer", "new_secret"]

_PREFIX = "whsec_"
_MIN_BYTES, _MAX_BYTES = 24, 64  # of a secret, by the specification


class Signer:
    """Signs with every secret it has, so that receivers can go over to a new one in their time.

    Args:
        whsecs: `whsec_...`, the newest first; none: messages carry id and time, but no signature.

    Raises:
        ValueError: a secret is not 24 to 64 bytes of base64 after its prefix.
    """

    def __init__(self, whsecs: Sequence[str]) -> None:
        self._webhooks = [Webhook(_decode(whsec)) for whsec in whsecs]

    def headers(self, message_id: str, timestamp_s: int, body: str) -> dict[str, str]:
        """Make the headers of one attempt.

        Args:
            message_id: the same over all attempts.
            timestamp_s: of this attempt, seconds since the epoch; receivers refuse one that is
                minutes away from their clock.
            body: exactly as it is sent.
        """
        headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s)}
        moment = datetime.fromtimestamp(timestamp_s, tz=UTC)
        signatures = [webhook.sign(message_id, moment, body) for webhook in self._webhooks]
        if signatures:
            headers["webhook-signature"] = " ".join(signatures)
        return headers


def new_secret() -> str:
    """Draw a secret of 256 bits."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def _decode(whsec: str) -> bytes:
    """Check a secret; the message of the error does not repeat it."""
    try:
        secret = base64.b64decode(whsec.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not whsec.startswith(_PREFIX) or not _MIN_BYTES <= len(secret) <= _MAX_BYTES:
        raise ValueError(f"a webhook secret is {_PREFIX} and the base64 of 24 to 64 bytes")
    return secret
