"""Bytes of a request to its fields: JSON or form, both as an untyped mapping. Judges no field.

The standard parser, not orjson: it keeps a 30-digit seed exact and hands NaN on, so that the field
which holds it can be named. Its two weak spots are closed here: nesting and lone surrogates (the
latter in `coerce`, where text is read).
"""

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from pydantic import JsonValue
from starlette.requests import Request

from serve_app import errors

__all__ = ["Fields", "parse", "read"]

Fields = Mapping[str, JsonValue]

_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS = 200
_MAX_PARTS = 100_000  # commas and brackets; bounds the objects that a body can make


async def read(request: Request, max_depth: int) -> Fields:
    """Read the fields of a request; no body means no fields.

    Raises:
        errors.BodyTooLarge: by the body limit of `middleware`, while it is read.
        errors.InvalidJson: neither a JSON object nor a form.
    """
    content_type = request.headers.get("content-type", "")
    is_form = content_type.split(";")[0].strip().lower() == _FORM
    return parse(await request.body(), max_depth, is_form=is_form)


def parse(data: bytes, max_depth: int, *, is_form: bool = False) -> Fields:
    """Parse a body. A "form" that begins with a brace is JSON, as `curl -d` sends it.

    Raises:
        errors.InvalidJson: no object, nested deeper than `max_depth`, or not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig").strip()
        if not text:
            return {}
        if is_form and not text.startswith("{"):
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS)
            return dict(pairs)
        if text.count(",") + text.count("[") + text.count("{") > _MAX_PARTS:
            raise errors.InvalidJson("too many values")
        fields = json.loads(text)
    except (ValueError, RecursionError) as exc:  # bad UTF-8, JSON, form; over-long numbers
        raise errors.InvalidJson(type(exc).__name__) from exc
    if not isinstance(fields, dict):
        raise errors.InvalidJson("no object")
    if _is_deeper(fields, max_depth):
        raise errors.InvalidJson("nested too deep")
    return fields


def _is_deeper(value: JsonValue, max_depth: int) -> bool:
    level = [value]
    for _ in range(max_depth + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: JsonValue) -> list[JsonValue]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
