"""Which IP addresses are the public internet.

The table is our own, because `ipaddress.is_global` lets through v4 addresses that are hidden in
v6 ones, multicast and site-local, and changes with the Python version. Sources: the IANA IPv4
and IPv6 Special-Purpose Address Registries and the RFCs named beside each range. It is stricter
than the registries: what embeds another address is refused whatever it embeds.
"""

import socket
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

__all__ = ["is_inside", "is_public"]

_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network", RFC 791 3.2; Linux dials 0.0.0.0 as loopback
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; a cloud's metadata lives here
        "127.0.0.0/8",  # loopback, RFC 1122 3.2.1.3
        "168.63.129.16/32",  # Azure's host agent, reachable from every virtual machine there
        "169.254.0.0/16",  # link-local, RFC 3927; cloud metadata
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # protocol assignments, RFC 6890; whole, since a metadata host is inside
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.88.99.0/24",  # 6to4 relays, deprecated, RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112 4, with the limited broadcast, RFC 919
    )
)

# Global unicast, RFC 4291 2.4 as allocated by IANA. All else is refused by not being inside:
# unspecified, loopback and v4-compatible ::/96 (RFC 4291), v4-mapped ::ffff:0:0/96 (RFC 4291),
# v4-translated ::ffff:0:0:0/96 (RFC 2765), NAT64 64:ff9b::/96 (RFC 6052) and 64:ff9b:1::/48
# (RFC 8215), discard 100::/64 (RFC 6666), SRv6 5f00::/16 (RFC 9602), unique local fc00::/7
# (RFC 4193), link-local fe80::/10 (RFC 4291), site-local fec0::/10 (RFC 3879), multicast
# ff00::/8 (RFC 4291).
_GLOBAL_V6 = IPv6Network("2000::/3")

_REFUSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        # Protocol assignments, RFC 2928, whole: Teredo 2001::/32 (RFC 4380), benchmarking
        # 2001:2::/48 (RFC 5180), ORCHID 2001:10::/28 (RFC 4843), ORCHIDv2 2001:20::/28
        # (RFC 7343), drone ids 2001:30::/28 (RFC 9374).
        "2001::/23",
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056
        "3ffe::/16",  # 6bone, returned, RFC 3701
        "3fff::/20",  # documentation, RFC 9637
    )
)

# ISATAP, RFC 5214 6.1: the interface identifier [02]00:5efe:V4 under any prefix.
_ISATAP_IDS = frozenset({0x0000_5EFE, 0x0200_5EFE})


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet and to nothing special.

    Args:
        address: an address, or its standard text. Anything else, also with a zone id, is not
            public.
    """
    try:
        parsed = ip_address(address)
    except (AddressValueError, ValueError):
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_V4)
    if parsed.scope_id is not None or parsed not in _GLOBAL_V6:
        return False
    if (int(parsed) >> 32) & 0xFFFF_FFFF in _ISATAP_IDS:
        return False
    return not any(parsed in network for network in _REFUSED_V6)


def is_inside(host: str) -> bool:
    """Whether the text of a URL's host is enough to know that it is not the public internet.

    So it is for addresses, in every spelling that the C library takes, and for the names of this
    machine (RFC 6761, 6.3). No resolver is asked: what another name resolves to is judged when it
    is dialled, and may be something else tomorrow.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        answers = socket.getaddrinfo(
            name, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return False
    return not is_public(str(answers[0][4][0]))
