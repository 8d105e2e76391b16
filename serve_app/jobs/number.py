"""Job ids: integers that say nothing of other jobs. The only place that makes them.

Jobs are numbered as they come, and the id of a job is its number under a permutation whose key is
in the database. So no two jobs ever have the same id, also not after one was removed, and whoever
has some ids learns from them neither how many jobs there are nor the id of another.

Ids stay below 2^31 while there are any left, since clients in typed languages read 32-bit integers,
and then below 2^52: JavaScript counts up to 2^53, and helper calls draw theirs from the upper half.
"""

import hmac
import secrets

__all__ = ["FIRST", "MAX_ID", "derived", "id_of", "new_key"]

FIRST = 1_000_000
"""Numbers begin here, or this much above the ids of an older version, which may still count on."""

MAX_ID = 2**63 - 1
"""What the column of an id holds; clients send any number, and drivers choke on larger ones."""

_ID_BITS = (31, 52)
_ROUNDS = 10


def new_key() -> str:
    """Draw the key of a database, 256 bits in hex."""
    return secrets.token_hex(32)


def derived(key: str, purpose: str) -> bytes:
    """Derive another key, 32 bytes, from that of a database; it says nothing of ids."""
    return hmac.digest(bytes.fromhex(key), purpose.encode(), "sha256")


def id_of(number: int, key: str, first: int) -> int:
    """Permute the numbers from `first` on among themselves.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002: a Feistel network over
    a power of two, walked until it comes to a number of the range.
    """
    low = first
    for bits in _ID_BITS:
        high = 1 << bits
        if low < high // 2:  # else the walk to the few that are left would take long
            if number < high:
                break
            low = high
    value = _feistel(number, bytes.fromhex(key), half := (bits + 1) // 2)
    while not low <= value < high:
        value = _feistel(value, bytes.fromhex(key), half)
    return value


def _feistel(value: int, key: bytes, half: int) -> int:
    """Permute the numbers of twice `half` bits."""
    left, right = divmod(value, 1 << half)
    for turn in range(_ROUNDS):
        mixed = hmac.digest(key, bytes((half, turn)) + right.to_bytes(4, "big"), "sha256")
        left, right = right, left ^ int.from_bytes(mixed[:4], "big") % (1 << half)
    return left << half | right
