"""Webhooks: tell receivers that a job is done, at least once, signed, on a schedule.

`signing` makes headers, `retry` decides, `delivery` sends what the outbox holds. The outbox itself
is in `serve_app.jobs`, since its rows are written together with the jobs they tell of.
"""

from serve_app.webhooks.delivery import Limits, Sender
from serve_app.webhooks.poster import GuardedPoster
from serve_app.webhooks.signing import Signer

__all__ = ["GuardedPoster", "Limits", "Sender", "Signer"]
