"""Lenient readers of single field values, for what clients really send (api-reference 5.2).

Each takes an untyped value and returns a typed one, or raises `problem(...)` with the end of a
sentence that begins with the field's name. Absent values are removed before, by `is_absent`.
"""

import json
import math
import re
from urllib.parse import urlsplit

from pydantic import JsonValue
from pydantic_core import PydanticCustomError

from serve_app.images.inline import Inline, Value

__all__ = [
    "clean",
    "is_absent",
    "problem",
    "to_flag",
    "to_float",
    "to_floats",
    "to_id",
    "to_image",
    "to_int",
    "to_json",
    "to_names",
    "to_seed",
    "to_text",
    "to_upscale",
    "to_url",
]

_MAX_TEXT = 10_000  # characters of a prompt
_MAX_ID = 512  # characters of an id or a comma list of them
_MAX_URL = 2048
_MAX_TRACK_ID = 4096  # characters as JSON; webhook bodies stay small
_TOO_LONG_TRACK_ID = f"may not be greater than {_MAX_TRACK_ID} characters"
_MAX_INT = 2**63
_NUMBER = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:e[+-]?\d{1,4})?", re.ASCII)
_NON_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)")
_FLAGS = {
    **dict.fromkeys(("yes", "true", "1", "on"), True),
    **dict.fromkeys(("no", "false", "0", "off"), False),
}


def problem(sentence_end: str) -> PydanticCustomError:
    """Make the error of a bad value, such as "must be an integer"."""
    return PydanticCustomError("value", "{text}", {"text": sentence_end})


def is_absent(value: Value) -> bool:
    """Tell whether a value means "not given": null, empty text or list, the word null."""
    if isinstance(value, str):
        return len(value) < 16 and value.strip().lower() in ("", "null")
    return value is None or value == []


def clean(text: str) -> str:
    """Drop what no database or tokenizer takes: NUL, lone surrogates, blanks at the ends."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "").strip()


def to_text(value: Value) -> str:
    """Read a prompt."""
    if not isinstance(value, str | Inline):
        raise problem("must be a string")
    if isinstance(value, Inline) or len(value) > _MAX_TEXT:
        raise problem(f"may not be greater than {_MAX_TEXT} characters")
    return clean(value)


def to_id(value: JsonValue) -> str:
    """Read a name of something in the catalogue; clients send numbers too."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INT:
        return str(value)
    if not isinstance(value, str) or len(value) > _MAX_ID:
        raise problem(f"must be a string of at most {_MAX_ID} characters")
    return clean(value)


def to_names(value: JsonValue) -> tuple[str, ...]:
    """Read a comma list, or a list, of names; empty parts and the word null are left out."""
    parts = value if isinstance(value, list) else to_id(value).split(",")
    return tuple(to_id(part) for part in parts if not is_absent(part))


def _to_number(value: JsonValue, kind: str) -> int | float:
    if isinstance(value, str):
        text = clean(value[:1000]).lower()
        if _NON_FINITE.fullmatch(text):
            raise problem("must be a finite number")
        if not _NUMBER.fullmatch(text):
            raise problem(f"must be {kind}")
        value = float(text) if {".", "e"} & set(text) else int(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem(f"must be {kind}")
    if isinstance(value, float) and not math.isfinite(value):
        raise problem("must be a finite number")
    return value


def to_int(value: JsonValue) -> int:
    """Read 512, "512" or 512.0."""
    number = _to_number(value, "an integer")
    if isinstance(number, float) and not number.is_integer():
        raise problem("must be an integer")
    return int(number)


def to_float(value: JsonValue) -> float:
    """Read 7.5, "7.5", 7 or "7"."""
    number = _to_number(value, "a number")
    if abs(number) > 1e18:  # also what float() cannot hold
        raise problem("is out of range")
    return float(number)


def to_floats(value: JsonValue) -> tuple[float, ...]:
    """Read "0.45,0.55", a number, or a list of either."""
    if isinstance(value, str):
        value = [part for part in value[:1000].split(",") if not is_absent(part)]
    parts = value if isinstance(value, list) else [value]
    return tuple(to_float(part) for part in parts)


def to_seed(value: JsonValue) -> int | None:
    """Read a seed, reduced modulo 2^32; -1 means random, as in A1111."""
    number = to_int(value)
    return None if number == -1 else number % 2**32


def to_flag(value: JsonValue) -> bool:
    """Read yes or no in any of the forms that clients use."""
    if isinstance(value, str | bool | int):
        flag = _FLAGS.get(str(value)[:10].strip().lower())
        if flag is not None:
            return flag
    raise problem("must be yes or no")


def to_upscale(value: JsonValue) -> int:
    """Read the factor of upscale: no = 1, yes = 2, or 1, 2, 3."""
    words = {"no": 1, "false": 1, "yes": 2, "true": 2, "1": 1, "2": 2, "3": 3}
    if isinstance(value, str | bool | int):
        factor = words.get(str(value)[:10].strip().lower())
        if factor is not None:
            return factor
    raise problem("must be one of no, yes, 1, 2, 3")


def to_image(value: Value) -> str | Inline:
    """Read a URL or inline data; V7 clients send a list of one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise problem("must be one picture")
        value = value[0]
    if isinstance(value, Inline):
        return value
    if not isinstance(value, str):
        raise problem("must be a URL, a base64 string or a data URI")
    return clean(value)


def to_url(value: JsonValue) -> str:
    """Read an address that a webhook may go to; which hosts are allowed is judged when it is."""
    reason = problem("must be a valid URL that starts with http:// or https://")
    if not isinstance(value, str) or len(value) > _MAX_URL:
        raise reason
    text = clean(value)
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        raise reason from None
    if not is_good or any(char.isspace() or not char.isprintable() for char in text):
        raise reason
    return text


def to_json(value: Value) -> JsonValue:
    """Read a track_id: anything small, given back as it was sent."""
    cleaned = _clean_json(value)
    if len(json.dumps(cleaned)) > _MAX_TRACK_ID:
        raise problem(_TOO_LONG_TRACK_ID)
    return cleaned


def _clean_json(value: Value) -> JsonValue:
    if isinstance(value, Inline):
        raise problem(_TOO_LONG_TRACK_ID)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean_json(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): _clean_json(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise problem("must be a finite number")
    if isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise problem("must be an integer of at most 64 bits")
    return value
