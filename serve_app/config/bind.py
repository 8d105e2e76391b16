"""Whether the service may listen where it does."""

import ipaddress

from serve_app.config.http import AuthConfig, AuthMode

__all__ = ["OpenOnPublicBindError", "check_bind"]


class OpenOnPublicBindError(ValueError):
    """`auth.mode: open` on an address that others can reach."""


def check_bind(auth: AuthConfig, host: str | None) -> None:
    """Refuse to serve everybody by accident.

    Raises:
        OpenOnPublicBindError: the host is not loopback, keys are off, and `auth.force_open` is too.
    """
    if auth.mode is AuthMode.KEYS or auth.force_open or _is_loopback(host):
        return
    raise OpenOnPublicBindError(
        f"auth.mode is open and {host} is not a loopback address; "
        "set auth.mode: keys, or auth.force_open: true if anybody may call"
    )


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
