"""`lift`: takes the pictures out of a large JSON text, so that the rest is small.

A picture in base64 is a string of megabytes, which the JSON parser would copy several times while
nothing else of the process runs. A string of more than `LONG_BYTES` can be nothing else: no other
field takes so much, however it is escaped.
"""

import secrets
from collections.abc import Iterator

from serve_app import errors
from serve_app.images.inline import Inline, Writing

__all__ = ["LONG_BYTES", "lift"]

LONG_BYTES = 128 * 1024  # a prompt of 10,000 characters, each escaped by 12 bytes, is shorter
_MAX_QUOTES = 50_000  # those inside of texts too
_BUNCH = 1024  # an even number of bytes


def lift(data: bytearray, max_bytes: int) -> tuple[bytearray, dict[str, Inline]]:
    """Replace the long strings by names that no client can know; returns the text and them.

    Args:
        data: a JSON text, not judged yet.
        max_bytes: of what is left; a text that is no longer comes back as it is.

    Raises:
        errors.BodyTooLarge: more is left.
        errors.InvalidJson: a string has no end, or there are very many.
    """
    if len(data) <= max_bytes:
        return data, {}
    view, left, lifted, at = memoryview(data), bytearray(), dict[str, Inline](), 0
    mark = secrets.token_hex(16)
    for start, end in _strings(data):
        if end - start <= LONG_BYTES:
            continue
        _move(view[at:start], left, max_bytes)
        name = f"{mark}{len(lifted)}"
        left += name.encode()
        lifted[name] = Inline(view[start:end], Writing.JSON)
        at = end
    _move(view[at:], left, max_bytes)
    return left, lifted


def _move(part: memoryview, left: bytearray, max_bytes: int) -> None:
    if len(left) + len(part) > max_bytes:
        raise errors.BodyTooLarge(max_bytes)
    left += part


def _strings(data: bytearray) -> Iterator[tuple[int, int]]:
    """Find the strings of a JSON text: where each begins and ends between its quotes."""
    at, start = -1, 0
    for _ in range(_MAX_QUOTES):
        at = data.find(b'"', at + 1)
        if at < 0:
            if start:
                raise errors.InvalidJson("a string without an end")
            return
        if not start:
            start = at + 1
        elif not _is_escaped(data, at):
            yield start, at
            start = 0
    raise errors.InvalidJson("too many quotes")


def _is_escaped(data: bytearray, at: int) -> bool:
    """Return whether an odd number of backslashes precedes; they are read in chunks."""
    while True:
        bunch = data[max(0, at - _BUNCH) : at]
        others = len(bunch.rstrip(b"\\"))
        if others or at <= _BUNCH:
            return (len(bunch) - others) % 2 == 1
        at -= _BUNCH
