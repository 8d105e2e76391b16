"""`Preview`: whether a guarded client would call a URL, without calling it."""

from serve_app.net.judge import DEFAULT_PORTS, Judge, Policy
from serve_app.net.transport import GuardedBackend, Resolver, SystemResolver

__all__ = ["Preview"]


class Preview:
    """Judges as `GuardedClient` does, now: a name may lead elsewhere when it is called.

    Args:
        policy: of the client; a lookup takes `connect_timeout_s` at most.
        resolver: replaces the machine's resolver, in tests.
    """

    def __init__(self, policy: Policy, resolver: Resolver | None = None) -> None:
        self._judge = Judge(policy)
        self._limit_s = policy.connect_timeout_s
        self._backend = GuardedBackend(resolver or SystemResolver(), self._judge.allowed_hosts)

    async def check(self, url: str) -> None:
        """Return for a URL that may be called.

        Raises:
            Refused: its text is not acceptable.
            ForbiddenAddress: its host resolves to an address that may not be dialled.
            UnknownHost: there is no such host.
            Unreachable: nobody could say so in time.
        """
        parsed = self._judge.read(url)
        host = parsed.raw_host.decode("ascii")
        if not self._judge.allows(host):
            port = DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
            await self._backend.addresses(host, port, self._limit_s)
