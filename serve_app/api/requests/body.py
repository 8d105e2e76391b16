"""Bytes of a request to its fields: JSON or form, both as an untyped mapping. Judges no field.

The pictures of a body stay where they are until somebody asks for them (`images.inline`). What is
left is small, and is read beside the event loop unless it is tiny.

The standard parser, not orjson: it keeps a 30-digit seed exact and hands NaN on, so that the field
which holds it can be named. Its weak spots are closed here: nesting, long numbers, many values;
lone surrogates in `coerce`, where text is read.
"""

import asyncio
import codecs
import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import JsonValue
from starlette.requests import Request

from serve_app import errors
from serve_app.api.requests import form
from serve_app.api.requests.lift import lift
from serve_app.config import HttpConfig
from serve_app.images.inline import Inline, Value

__all__ = ["Fields", "digested", "parse", "read"]

Fields = Mapping[str, Value]

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_TINY_BYTES = 16 * 1024  # a few milliseconds, whatever they hold
_MAX_PARTS = 30_000  # commas and brackets, those of texts too; bounds what the parser makes
_MAX_VALUES = 5_000  # in lists and objects of all levels; a `track_id` has room for 2,000
_MAX_DIGITS = 1_000  # of a whole number; reading it takes time with their square
_OVERLOADED_S = 5.0  # until some of the bodies are parsed


class _Parsers:
    """Two threads, so that a hostile body does not keep all others waiting; asyncio's have others.

    What waits for them is bounded, as what arrives is: bodies may come faster than they are parsed.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="body")
        self._num_bytes = 0

    async def parse(self, data: bytearray, content_type: str, http: HttpConfig) -> Fields:
        """Parse beside the event loop.

        Raises:
            errors.Overloaded: over `max_arriving_bytes`, with those that wait or are parsed.
        """
        size = len(data)
        if self._num_bytes + size > http.max_arriving_bytes:
            data.clear()
            raise errors.Overloaded(_OVERLOADED_S)
        self._num_bytes += size
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, parse, data, content_type, http
        )
        work.add_done_callback(lambda _: self._forget(size))  # also when the client has left
        return await work

    def _forget(self, size: int) -> None:
        self._num_bytes -= size


_PARSERS = _Parsers()


async def read(request: Request, http: HttpConfig) -> Fields:
    """Read the fields of a request; no body means no fields.

    Raises:
        errors.BodyTooLarge: by the limits of `http`, while it is read.
        errors.InvalidJson: neither a JSON object nor a form.
        errors.Overloaded: too many bodies wait to be parsed.
    """
    content_type = request.headers.get("content-type", "")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > http.max_form_bytes and _kind(content_type, data) == _FORM:
                raise errors.BodyTooLarge(http.max_form_bytes)
    except BaseException:
        data.clear()  # the error's frames live until its answer is sent, after the rest of the body
        raise
    if len(data) <= _TINY_BYTES:
        return parse(data, content_type, http)
    return await _PARSERS.parse(data, content_type, http)


def parse(data: bytearray, content_type: str, http: HttpConfig) -> Fields:
    """Parse a body. A "form" that begins with a brace is JSON, as `curl -d` sends it.

    The pictures among the fields are views of `data`.

    Raises:
        errors.BodyTooLarge: too much besides pictures.
        errors.InvalidJson: no object, too many or too deep values, or not UTF-8.
    """
    try:
        kind = _kind(content_type, data)
        if kind == _FORM:
            return form.urlencoded(data, http)
        if kind == _MULTIPART:
            return form.multipart(data, content_type, http)
        return _object(data, http)
    except (ValueError, RecursionError) as exc:  # bad UTF-8, JSON, form; over-long numbers
        raise errors.InvalidJson(type(exc).__name__) from exc


def digested(fields: Fields) -> dict[str, JsonValue]:
    """Copy the fields with a digest in place of each picture that lies in the body. Blocks."""
    return {name: _digested(value) for name, value in fields.items()}


def _kind(content_type: str, data: bytearray) -> str:
    """Return the media type that the body is read as; what is no form is taken for JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    begin = bytes(data[:64]).removeprefix(codecs.BOM_UTF8).lstrip()
    return "" if kind == _FORM and begin.startswith(b"{") else kind


def _object(data: bytearray, http: HttpConfig) -> Fields:
    left, lifted = lift(data, http.max_fields_bytes)
    text = left.decode("utf-8-sig").strip()
    if not text:
        return {}
    if text.count(",") + text.count("[") + text.count("{") > _MAX_PARTS:
        raise errors.InvalidJson("too many values")
    # Not strict, for shells that put base64 with its line breaks into a string.
    fields = json.loads(text, parse_int=_to_int, strict=False)
    if not isinstance(fields, dict):
        raise errors.InvalidJson("no object")
    _check(fields, http.max_json_depth)
    if not lifted:
        return fields
    return {name: _put_back(value, lifted) for name, value in fields.items()}


def _to_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise errors.InvalidJson("a number that is too long")
    return int(digits)


def _check(fields: JsonValue, max_depth: int) -> None:
    """Refuse too many levels, or too many values in them all."""
    level, num_values = [fields], 0
    for _ in range(max_depth + 1):
        level = [child for node in level for child in _children(node)]
        num_values += len(level)
        if not level:
            return
        if num_values > _MAX_VALUES:
            raise errors.InvalidJson("too many values")
    raise errors.InvalidJson("nested too deep")


def _children(node: JsonValue) -> Iterable[JsonValue]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _put_back(value: JsonValue, lifted: Mapping[str, Inline]) -> Value:
    """Copy a value with the pictures in place of their names; its depth has been checked."""
    if isinstance(value, dict):
        return {name: _put_back(item, lifted) for name, item in value.items()}
    if isinstance(value, list):
        return [_put_back(item, lifted) for item in value]
    return lifted.get(value, value) if isinstance(value, str) else value


def _digested(value: Value) -> JsonValue:
    if isinstance(value, dict):
        return {name: _digested(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_digested(item) for item in value]
    return hashlib.sha256(value.view).hexdigest() if isinstance(value, Inline) else value
