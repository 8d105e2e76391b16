"""The guarded HTTP client: the only way in which this service dials an address a client named.

`address` judges addresses, `transport` dials only what was judged, `client` speaks HTTP under
limits and raises the classes of `failure`. Used by images/ for downloads and by webhooks/.
"""

from serve_app.net.client import GuardedClient, Policy, PostReply
from serve_app.net.failure import (
    BadReply,
    BadStatus,
    ForbiddenAddress,
    NetFailure,
    Refused,
    TooLarge,
    TooManyRedirects,
    TooSlow,
    Unreachable,
)
from serve_app.net.transport import Resolver

__all__ = [
    "BadReply",
    "BadStatus",
    "ForbiddenAddress",
    "GuardedClient",
    "NetFailure",
    "Policy",
    "PostReply",
    "Refused",
    "Resolver",
    "TooLarge",
    "TooManyRedirects",
    "TooSlow",
    "Unreachable",
]
