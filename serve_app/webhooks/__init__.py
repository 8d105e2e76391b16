"""Webhooks: tell receivers that a job is done, at least once, signed, on a schedule.

`receivers` judges addresses when a call comes, `signing` makes headers, `retry` decides, `delivery`
sends what the outbox holds. The outbox itself is in `serve_app.jobs`, since its rows are written
together with the jobs they tell of.
"""

from serve_app.config import WebhooksConfig
from serve_app.net import GuardedClient, Policy
from serve_app.webhooks.delivery import Limits, Sender
from serve_app.webhooks.poster import GuardedPoster
from serve_app.webhooks.protocol import Outbox
from serve_app.webhooks.receivers import Receivers
from serve_app.webhooks.retry import SCHEDULE_S
from serve_app.webhooks.signing import Signer

__all__ = ["GuardedPoster", "Limits", "Receivers", "Sender", "Signer", "open_sender"]


def open_sender(outbox: Outbox, config: WebhooksConfig) -> Sender:
    """Make the sender of a process from its settings."""
    policy = Policy(
        allowed_hosts=config.allowed_hosts,
        allowed_ports=config.allowed_ports,
        timeout_s=config.timeout_s,
    )
    limits = Limits(
        config.timeout_s,
        config.lease_s,
        config.max_in_flight,
        config.poll_s,
        config.schedule_s or SCHEDULE_S,
    )
    signer = Signer([secret.get_secret_value() for secret in config.secrets])
    return Sender(outbox, GuardedPoster(GuardedClient(policy)), signer, limits)
