"""`Receivers`: where webhooks may go, checked when a call names one rather than after its job."""

from serve_app import errors
from serve_app.config import WebhooksConfig
from serve_app.net import (
    ForbiddenAddress,
    Policy,
    Preview,
    Refused,
    Resolver,
    UnknownHost,
    Unreachable,
)

__all__ = ["Receivers"]


class Receivers:
    """Refuses what the sender would not post to.

    Args:
        config: which hosts and ports are allowed, and how long a lookup may take.
        resolver: replaces the machine's resolver, in tests.
    """

    def __init__(self, config: WebhooksConfig, resolver: Resolver | None = None) -> None:
        policy = Policy(
            allowed_hosts=config.allowed_hosts,
            allowed_ports=config.allowed_ports,
            connect_timeout_s=config.lookup_timeout_s,
        )
        self._preview = Preview(policy, resolver)

    async def check(self, url: str) -> None:
        """Return for a URL that a webhook may go to, or might: the sender judges again.

        A host that is not public and one that does not exist get the same answer, so that nobody
        can list the names of the inside by asking for webhooks.

        Raises:
            errors.InvalidRequest: it may not.
        """
        try:
            await self._preview.check(url)
        except Refused as exc:
            text = f"The webhook cannot be called: {exc.reason}."
            raise errors.InvalidRequest("webhook", text) from exc
        except (ForbiddenAddress, UnknownHost) as exc:
            text = "The webhook must lead to a host that can be found on the public internet."
            raise errors.InvalidRequest("webhook", text) from exc
        except Unreachable:
            return  # name servers have their troubles; the sender has days
