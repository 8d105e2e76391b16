"""`Inline`: a picture that lies in the body of a call, and `read`, which makes a file of it.

The body is neither copied nor decoded until somebody reads the picture; then it happens window by
window, so that no step holds the interpreter for long and no more is held than the file itself.

Base64 is read leniently, since clients wrap lines, drop the padding, use the alphabet for URLs, or
put it into a form as it is, where each + becomes a blank.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from pydantic import JsonValue

from serve_app import errors

__all__ = ["Inline", "Value", "Writing", "read"]

_WINDOW = 64 * 1024  # bytes; less than a millisecond for any step
_MAX_HEAD = 512  # bytes of a data URI before its base64, and more
_SPREAD = 2  # escapes and line breaks make base64 longer, by a seventh at most
_DATA = re.compile(rb"data:([^,]{0,256}),", re.IGNORECASE)
_DROPPED = b"\t\r\n\v\f"
_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")


class Writing(Enum):
    """How a picture is written in a body."""

    FILE = auto()  # as it is
    TEXT = auto()  # base64 or a data URI
    JSON = auto()  # the same inside of a JSON string
    FORM = auto()  # the same inside of a urlencoded form


@dataclass(frozen=True, slots=True, eq=False)
class Inline:
    """A picture in the body of a call; as long as it is there, so is the whole body."""

    view: memoryview
    writing: Writing


# A value of a body: what JSON knows, with pictures in it.
Value: TypeAlias = "Inline | JsonValue | list[Value] | dict[str, Value]"


def _spellings(template: str, characters: str) -> list[tuple[bytes, bytes]]:
    """List how characters are escaped, with hexadecimal digits in both cases."""
    return [
        (template.format(digits).encode(), character.encode())
        for character in characters
        for digits in {f"{ord(character):02X}", f"{ord(character):02x}"}
    ]


# Only what base64 and the head of a data URI consist of: all else is none. Each of these passes
# takes the same time whatever was sent.
_OF_JSON = [(b"\\/", b"/"), (b"\\n", b"\n"), (b"\\r", b"\r"), (b"\\t", b"\t")]
_OF_JSON += _spellings("\\u00{}", ":;,+/=")
_OF_FORM = _spellings("%{}", ":;,+/= \t\r\n")


def read(field: str, picture: Inline, max_bytes: int) -> bytes:
    """Make a file of a picture; what is in it is not looked at.

    Blocks, for a large picture long: run it in a thread.

    Args:
        field: request field, named in errors.
        picture: what the client sent.
        max_bytes: limit on the file.

    Raises:
        errors.InvalidImage: the text is no base64, or the file is empty or too large.
    """
    try:
        data = _file(picture, max_bytes)
    except _TooLarge:
        text = f"The {field} file is over {max_bytes} bytes."
        raise errors.InvalidImage(field, text) from None
    except _OtherUri:
        text = f"The {field} data URI is not base64-encoded."
        raise errors.InvalidImage(field, text) from None
    except binascii.Error as exc:
        text = f"The {field} field is neither an http(s) URL, a data URI nor base64."
        raise errors.InvalidImage(field, text) from exc
    if not data:
        raise errors.InvalidImage(field, f"The {field} field holds no data.")
    return data


class _TooLarge(Exception):
    """The file is, or would be."""


class _OtherUri(Exception):
    """A data URI that does not hold base64."""


def _file(picture: Inline, max_bytes: int) -> bytes:
    length = len(picture.view)
    if picture.writing is Writing.FILE:
        if length > max_bytes:
            raise _TooLarge
        return bytes(picture.view)
    if (length - _MAX_HEAD) * 3 // 4 > max_bytes * _SPREAD:
        raise _TooLarge
    file = bytearray()
    for text in _quads(_base64(_text(picture))):
        if len(file) + len(text) * 3 // 4 > max_bytes:
            raise _TooLarge
        file += base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    return bytes(file)


def _text(picture: Inline) -> Iterator[bytes]:
    """Undo how the body has it."""
    view = picture.view
    windows = (bytes(view[at : at + _WINDOW]) for at in range(0, len(view), _WINDOW))
    if picture.writing is Writing.JSON:
        return _unescaped(windows, b"\\", _OF_JSON)
    if picture.writing is Writing.FORM:
        return _unescaped((window.replace(b"+", b" ") for window in windows), b"%", _OF_FORM)
    return windows


def _unescaped(
    pieces: Iterable[bytes], sign: bytes, spellings: list[tuple[bytes, bytes]]
) -> Iterator[bytes]:
    """Undo escapes that begin with `sign`; one that is cut in two waits for its other half."""
    longest = max(len(spelling) for spelling, _ in spellings)
    cut = b""
    for piece in pieces:
        text = cut + piece
        at = text.rfind(sign, max(0, len(text) - longest + 1))
        text, cut = (text, b"") if at < 0 else (text[:at], text[at:])
        yield _replaced(text, spellings) if sign in text else text
    yield _replaced(cut, spellings)


def _replaced(text: bytes, spellings: list[tuple[bytes, bytes]]) -> bytes:
    for spelling, character in spellings:
        text = text.replace(spelling, character)
    return text


def _base64(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Leave the base64 alone: a blank inside of it is a + that went through a form."""
    blanks, is_begun = 0, False
    for piece in _without_head(_unescaped(pieces, b"%", _OF_FORM)):
        text = piece.translate(_URL_ALPHABET, _DROPPED)
        kept = text.rstrip(b" ") if is_begun else text.strip(b" ")
        if kept:
            for at in range(0, blanks, _WINDOW):
                yield b"+" * min(_WINDOW, blanks - at)
            yield kept.replace(b" ", b"+")
            blanks, is_begun = 0, True
        if is_begun:  # at the very end they are dropped
            blanks += len(text) - len(text.rstrip(b" "))


def _without_head(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Drop what stands before the base64 of a data URI."""
    begin = b""
    for piece in pieces:
        begin = (begin + piece).lstrip()
        if len(begin) >= _MAX_HEAD:
            break
    if begin[:5].lower() == b"data:":
        head = _DATA.match(begin)
        if head is None or not head[1].lower().endswith(b";base64"):
            raise _OtherUri
        begin = begin[head.end() :]
    yield begin
    yield from pieces


def _quads(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Cut base64 where a byte ends, without the padding that it may have at its end."""
    rest, is_padded = b"", False
    for piece in pieces:
        bare = piece.rstrip(b"=")
        if b"=" in bare or (is_padded and bare):
            raise binascii.Error("padding in the middle")
        is_padded = is_padded or len(bare) < len(piece)
        text = rest + bare
        at = len(text) - len(text) % 4
        yield text[:at]
        rest = text[at:]
    yield rest
