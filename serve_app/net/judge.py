"""Which URLs may be called, judged by their text; addresses are judged in `transport`."""

import re
from dataclasses import dataclass

import httpx2

from serve_app.net.address import is_inside
from serve_app.net.failure import Refused

__all__ = ["DEFAULT_PORTS", "MAX_URL_CHARS", "Judge", "Policy"]

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARS = 8192
# Names as DNS has them, underscores included, dotted v4 addresses, and bare v6 ones. What else
# a URL may hold as its host (percent signs, quotes, zone ids) only serves to confuse.
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*)|[0-9a-f:.]*:[0-9a-f:.]*")


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of one client.

    Args:
        allowed_hosts: names that may resolve to private or special addresses, on any port.
        allowed_ports: ports that other hosts may be dialled on.
        max_redirects: hops of one `get`, each judged anew.
        timeout_s: seconds for one whole call, lookups and redirects included.
        connect_timeout_s: seconds for a lookup and for each connection.
        max_bytes: bytes of one body.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = (80, 443)
    max_redirects: int = 3
    timeout_s: float = 15.0
    connect_timeout_s: float = 5.0
    max_bytes: int = 20 * 1024**2


class Judge:
    """Reads URLs, and refuses those that a policy does not allow.

    allowed_hosts: of the policy, in the spelling that hosts are compared in.
    """

    def __init__(self, policy: Policy) -> None:
        self._ports = policy.allowed_ports
        self.allowed_hosts = frozenset(_canonical(host) for host in policy.allowed_hosts)

    def read(self, url: str | httpx2.URL) -> httpx2.URL:
        """Read a URL; raises `Refused` with the reason."""
        parsed = _parse(url)
        if parsed.scheme not in DEFAULT_PORTS:
            raise Refused("only http and https URLs are accepted")
        if parsed.userinfo:
            raise Refused("a URL with a user name or password is not accepted")
        host = parsed.raw_host.decode("ascii")
        if not _HOST.fullmatch(host):
            raise Refused("the URL has no valid host name")
        port = DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
        is_allowed_host = self.allows(host) and 0 < port < 65536
        if not is_allowed_host and port not in self._ports:
            raise Refused(f"port {port} is not allowed")
        if not is_allowed_host and is_inside(host):
            raise Refused("its address is not allowed")
        return parsed

    def allows(self, host: str) -> bool:
        """Whether a host may be anywhere, on any port."""
        return _canonical(host) in self.allowed_hosts


def _canonical(host: str) -> str:
    return host.lower().rstrip(".")


def _parse(url: str | httpx2.URL) -> httpx2.URL:
    if isinstance(url, httpx2.URL):
        return url
    if len(url) > MAX_URL_CHARS:
        raise Refused(f"the URL has more than {MAX_URL_CHARS} characters")
    try:
        return httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as exc:  # IDNA and port errors are ValueErrors
        raise Refused("the URL is not valid") from exc
