"""Forms to fields: `application/x-www-form-urlencoded` and `multipart/form-data`.

A name that ends in `[]` or `[0]`, as PHP writes it, makes a list of all values that bear it; of
other equal names the last one counts. Files and long values stay where they are, as pictures.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, unquote_plus

from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app import errors
from serve_app.api.requests.lift import LONG_BYTES
from serve_app.config import HttpConfig
from serve_app.images.inline import Inline, Value, Writing

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["multipart", "urlencoded"]

_ITEM = re.compile(r"(.+)\[\d{0,4}\]", re.DOTALL)
# Blanks behind a boundary (RFC 2046, 5.1.1), where nobody writes any: the parser walks through them
# byte by byte.
_PADDING = re.compile(rb"[ \t]{256}")


def urlencoded(data: bytearray, http: HttpConfig) -> dict[str, Value]:
    """Read `a=1&b=2`, percent-encoded.

    Raises:
        errors.BodyTooLarge: too much besides pictures.
        errors.InvalidJson: too many fields.
        ValueError: not UTF-8.
    """
    return _fields(_pairs(data, http.max_form_fields), http.max_fields_bytes)


def multipart(data: bytearray, content_type: str, http: HttpConfig) -> dict[str, Value]:
    """Read the parts between the boundaries that the header names.

    Raises:
        errors.BodyTooLarge: too much besides pictures.
        errors.InvalidJson: too many parts, or cut off.
        ValueError: it is malformed, or a text is not UTF-8.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise errors.InvalidJson("no boundary")
    _count(data, b"\r\n--" + boundary, http.max_form_fields + 1)
    parts = _Parts()
    MultipartParser(boundary, parts.callbacks()).write(cast("bytes", data))
    if not parts.is_whole:
        raise errors.InvalidJson("cut off")
    return _fields(parts.found, http.max_fields_bytes)


def _fields(pairs: Iterable[tuple[str, Value]], room_bytes: int) -> dict[str, Value]:
    fields: dict[str, Value] = {}
    lists: dict[str, list[Value]] = {}
    left = room_bytes
    for name, value in pairs:
        left -= len(name) + (len(value) if isinstance(value, str) else 0)
        if left < 0:
            raise errors.BodyTooLarge(room_bytes)
        if item := _ITEM.fullmatch(name):
            lists.setdefault(item[1], []).append(value)
        else:
            fields[name] = value
    return fields | lists


def _pairs(data: bytearray, max_fields: int) -> Iterator[tuple[str, Value]]:
    view, start = memoryview(data), 0
    for _ in range(max_fields):
        end = data.find(b"&", start)
        yield from _pair(view[start : end if end >= 0 else len(data)])
        if end < 0:
            return
        start = end + 1
    raise errors.InvalidJson("too many fields")


def _pair(view: memoryview) -> Iterator[tuple[str, Value]]:
    """Read one pair, if it is one: `&&` holds none."""
    if len(view) <= LONG_BYTES:
        yield from parse_qsl(str(view, "utf-8"), keep_blank_values=True)
        return
    name, is_pair, _ = bytes(view[:LONG_BYTES]).partition(b"=")
    if not is_pair:
        raise errors.InvalidJson("a name without an end")
    yield unquote_plus(name.decode()), Inline(view[len(name) + 1 :], Writing.FORM)


def _count(data: bytearray, delimiter: bytes, max_parts: int) -> None:
    """Refuse very many parts, or what looks like them, before they cost anything."""
    at = -1
    for _ in range(max_parts):
        at = data.find(delimiter, at + 1)
        if at < 0:
            return
        if _PADDING.match(data, at + len(delimiter)):
            raise errors.InvalidJson("blanks behind a boundary")
    raise errors.InvalidJson("too many parts")


class _Parts:
    """What python-multipart calls while it walks through a body that it has as a whole."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Value]] = []
        self.is_whole = False

    def callbacks(self) -> "MultipartCallbacks":
        """Name what is called when."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._read_headers,
            "on_part_data": self._take_data,
            "on_part_end": self._end,
            "on_end": self._end_all,
        }

    def _begin(self) -> None:
        self._disposition = self._header = self._value = b""
        self._data = memoryview(b"")

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header = bytes(data[start:end]).lower()

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value = bytes(data[start:end])

    def _end_header(self) -> None:
        if self._header == b"content-disposition":
            self._disposition = self._value

    def _read_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise errors.InvalidJson("a part without a name")
        self._name = options[b"name"].decode()
        self._is_file = b"filename" in options

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._data = memoryview(data)[start:end]

    def _end(self) -> None:
        value: Value
        if self._is_file and len(self._data):  # a field that was left empty is a file without bytes
            value = Inline(self._data, Writing.FILE)
        elif len(self._data) > LONG_BYTES:
            value = Inline(self._data, Writing.TEXT)
        else:
            value = str(self._data, "utf-8")
        self.found.append((self._name, value))

    def _end_all(self) -> None:
        self.is_whole = True
