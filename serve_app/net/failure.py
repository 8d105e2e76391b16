"""Why a guarded call failed. The caller turns these into the errors that clients see.

    NetFailure
    +-- Refused             the URL itself is not acceptable; the reason is fit for the client
    +-- Unreachable         no connection
    |   +-- ForbiddenAddress   the host resolves to an address that may not be dialled
    |   +-- UnknownHost        there is no such host
    +-- TooManyRedirects
    +-- BadStatus           the server answered, but not with 200
    +-- BadReply            what came is not HTTP, or ended early
    +-- TooLarge
    +-- TooSlow

`str(error)` may hold addresses of the inside: log it, never show it. A client that could tell
`ForbiddenAddress` from `UnknownHost` could map the inside by name, so show both the same way.
"""

__all__ = [
    "BadReply",
    "BadStatus",
    "ForbiddenAddress",
    "NetFailure",
    "Refused",
    "TooLarge",
    "TooManyRedirects",
    "TooSlow",
    "UnknownHost",
    "Unreachable",
]


class NetFailure(Exception):
    """Base of all failures of a guarded call."""


class Refused(NetFailure):
    """The URL is not acceptable: `Refused(reason)`, a reason drawn from the URL's text alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreachable(NetFailure):
    """The name does not resolve or nobody accepts the connection: `Unreachable(detail)`."""


class ForbiddenAddress(Unreachable):
    """The host resolves to an address that may not be dialled: `ForbiddenAddress(detail)`."""


class UnknownHost(Unreachable):
    """There is no such host, as far as its name servers say: `UnknownHost(detail)`."""


class TooManyRedirects(NetFailure):
    """More hops than the policy allows: `TooManyRedirects(limit)`."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class BadStatus(NetFailure):
    """The server answered with another status than 200: `BadStatus(status)`."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class BadReply(NetFailure):
    """The reply is not HTTP, breaks its framing, or the connection broke: `BadReply(detail)`."""


class TooLarge(NetFailure):
    """The body is, or says that it is, over the limit: `TooLarge(limit_bytes)`."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes


class TooSlow(NetFailure):
    """The whole call took longer than the policy allows: `TooSlow(limit_s)`."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s
