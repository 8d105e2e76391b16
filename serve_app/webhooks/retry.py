"""When a webhook message is tried again, and when no more. Pure: no clock, no dice, no network.

Source: Standard Webhooks 1.0.0, "Retry schedule" and "Status codes".
"""

import email.utils
import re
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.webhooks.protocol import DeliveryState, Reply

__all__ = ["GIVE_UP", "SCHEDULE_S", "Verdict", "judge"]

_MINUTE_S, _HOUR_S = 60.0, 3600.0
SCHEDULE_S = (
    0.0,
    5.0,
    20.0,
    _MINUTE_S,
    5 * _MINUTE_S,
    30 * _MINUTE_S,
    2 * _HOUR_S,
    5 * _HOUR_S,
    10 * _HOUR_S,
    14 * _HOUR_S,
    20 * _HOUR_S,
    24 * _HOUR_S,
)
"""Seconds before each of the twelve attempts; 75 h 36 min in all.

The ten of Standard Webhooks, and two more in the first minute and a half: most receivers that do
not answer are being deployed, and would else hear of it five minutes later.
"""

_JITTER = 0.2  # share by which a delay differs, so that what failed together returns apart
_GONE = 410
_MAX_ASKED_S = 24 * _HOUR_S
_SECONDS = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a message; `delay_s` counts while it is pending."""

    state: DeliveryState
    delay_s: float = 0.0


GIVE_UP = Verdict(DeliveryState.FAILED)


def judge(
    reply: Reply | None,
    attempts: int,
    now_s: float,
    spread: float,
    schedule_s: Sequence[float] = SCHEDULE_S,
) -> Verdict:
    """Decide after an attempt.

    Only 2xx is success: a redirect is not followed, since it may lead anywhere. 410 says that the
    receiver wants no more. Everything else may be repaired within three days.

    Args:
        reply: the answer; none when there was none.
        attempts: made so far, this one included.
        now_s: seconds since the epoch.
        spread: 0 to 1, drawn by the caller.
        schedule_s: seconds before each attempt; there are no more attempts than entries.
    """
    if reply is not None and 200 <= reply.status < 300:
        return Verdict(DeliveryState.DELIVERED)
    if attempts >= len(schedule_s) or (reply is not None and reply.status == _GONE):
        return GIVE_UP
    delay_s = schedule_s[attempts] * (1 - _JITTER + 2 * _JITTER * spread)
    asked_s = _retry_after_s(reply.retry_after, now_s) if reply and reply.retry_after else 0.0
    # A receiver may ask for time, but not for ever.
    return Verdict(DeliveryState.PENDING, max(delay_s, min(asked_s, _MAX_ASKED_S)))


def _retry_after_s(value: str, now_s: float) -> float:
    """Read the header: seconds or a date; 0 when it is neither. Source: RFC 9110, 10.2.3."""
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - now_s
    except (ValueError, OverflowError):
        return 0.0
