"""The guarded HTTP client: the only way in which this service dials an address a client named.

`judge` and `address` judge URLs and addresses, `transport` dials only what was judged, `client`
speaks HTTP under limits and raises the classes of `failure`, `preview` tells what it would refuse.
Used by images/ for downloads and by webhooks/.
"""

from serve_app.net.client import GuardedClient, PostReply
from serve_app.net.failure import (
    BadReply,
    BadStatus,
    ForbiddenAddress,
    NetFailure,
    Refused,
    TooLarge,
    TooManyRedirects,
    TooSlow,
    UnknownHost,
    Unreachable,
)
from serve_app.net.judge import Policy
from serve_app.net.preview import Preview
from serve_app.net.transport import Resolver

__all__ = [
    "BadReply",
    "BadStatus",
    "ForbiddenAddress",
    "GuardedClient",
    "NetFailure",
    "Policy",
    "PostReply",
    "Preview",
    "Refused",
    "Resolver",
    "TooLarge",
    "TooManyRedirects",
    "TooSlow",
    "UnknownHost",
    "Unreachable",
]
