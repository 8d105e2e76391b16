"""Lenient readers of single field values, for what clients really send (api-reference 5.2).

Each takes an untyped value and returns a typed one, or raises `problem(...)` with the end of a
sentence that begins with the field's name. Absent values are removed before, by `is_absent`; the
word "none" is one more of them where a field names something, see `optional`.
"""

import json
import math
import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import JsonValue
from pydantic_core import PydanticCustomError

from serve_app.images.inline import Inline, Value

__all__ = [
    "clean",
    "is_absent",
    "is_none",
    "optional",
    "problem",
    "to_anchor",
    "to_flag",
    "to_float",
    "to_floats",
    "to_id",
    "to_image",
    "to_int",
    "to_json",
    "to_names",
    "to_request_id",
    "to_room",
    "to_seed",
    "to_seed_unless_0",
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
_MAX_WHOLE = 2**53  # above, floats skip integers, so one cannot be an id
_NUMBER = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:e[+-]?\d{1,4})?", re.ASCII)
_NON_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)")
_FLAGS = {
    **dict.fromkeys(("yes", "true", "1", "on"), True),
    **dict.fromkeys(("no", "false", "0", "off"), False),
}

T = TypeVar("T")


def problem(sentence_end: str) -> PydanticCustomError:
    """Make the error of a bad value, such as "must be an integer"."""
    return PydanticCustomError("value", "{text}", {"text": sentence_end})


def is_absent(value: Value) -> bool:
    """Return whether a value means "not given": null, empty text or list, the word null."""
    if isinstance(value, str):
        return len(value) < 16 and value.strip().lower() in ("", "null")
    return value is None or value == []


def is_none(value: Value) -> bool:
    """Return whether a value is the word none, as Python writes its null."""
    return isinstance(value, str) and len(value) < 16 and value.strip().lower() == "none"


def optional(read: Callable[[JsonValue], T]) -> Callable[[JsonValue], T | None]:
    """Make a reader take the word none, as Python writes its null, for "not given".

    Not for free text, where it is a word, nor for yes and no, where it might mean either.
    """

    def read_unless_none(value: JsonValue) -> T | None:
        return None if is_none(value) else read(value)

    return read_unless_none


def clean(text: str) -> str:
    """Drop what no database or tokenizer takes (`storable`), and blanks at the ends."""
    return storable(text).strip()


def storable(text: str) -> str:
    """Drop NUL and write U+FFFD for each lone surrogate: databases and tokenizers take neither."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "")


def to_text(value: Value) -> str:
    """Read a prompt."""
    if not isinstance(value, str | Inline):
        raise problem("must be a string")
    if isinstance(value, Inline) or len(value) > _MAX_TEXT:
        raise problem(f"may not be greater than {_MAX_TEXT} characters")
    return clean(value)


def to_id(value: JsonValue) -> str:
    """Read a name of something in the catalogue; clients send whole numbers too."""
    text = _to_name(value)
    if text is None:
        raise problem("must be a string")
    if len(text) > _MAX_ID:
        raise problem(f"may not be greater than {_MAX_ID} characters")
    return text


def to_request_id(value: JsonValue) -> str:
    """Read the id of a job, cut where no id is that long: it names none, as any unknown one."""
    text = _to_name(value)
    if text is None:
        raise problem("must be an integer or a string")
    return text[:_MAX_ID]


def to_names(value: JsonValue) -> tuple[str, ...]:
    """Read a comma list, or a list, of names; empty parts, null and none are left out."""
    parts = value if isinstance(value, list) else to_id(value).split(",")
    return tuple(to_id(part) for part in parts if not (is_absent(part) or is_none(part)))


def _to_name(value: JsonValue) -> str | None:
    """Read a string or a number as text; None: it is neither."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE:
        value = int(value)  # 7.0 is what 7 becomes in many a decoder
    return str(value)


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
    """Read "0.45,0.55", a number, or a list of either; as `to_names`."""
    if isinstance(value, str):
        value = [*value[:1000].split(",")]
    parts = value if isinstance(value, list) else [value]
    return tuple(to_float(part) for part in parts if not (is_absent(part) or is_none(part)))


def to_seed(value: JsonValue) -> int | None:
    """Read a seed, reduced modulo 2^32; -1 means random, as in A1111."""
    number = to_int(value)
    return None if number == -1 else number % 2**32


def to_seed_unless_0(value: JsonValue) -> int | None:
    """Read a seed of the call whose page says that 0 is random too."""
    return to_seed(value) or None


def to_flag(value: JsonValue) -> bool:
    """Read yes or no in any of the forms that clients use."""
    if isinstance(value, str | bool | int):
        flag = _FLAGS.get(str(value)[:10].strip().lower())
        if flag is not None:
            return flag
    raise problem("must be yes or no")


def to_upscale(value: JsonValue) -> int:
    """Read the factor of upscale: no, none = 1, yes = 2, or 1, 2, 3."""
    words = {"no": 1, "none": 1, "false": 1, "yes": 2, "true": 2, "1": 1, "2": 2, "3": 3}
    if isinstance(value, str | bool | int):
        factor = words.get(str(value)[:10].strip().lower())
        if factor is not None:
            return factor
    raise problem("must be one of no, yes, 1, 2, 3")


def to_image(value: Value) -> str | Inline:
    """Read a URL or inline data; V7 clients send a list of one, some with a null beside it."""
    if isinstance(value, list):
        given = [one for one in value if not (is_absent(one) or is_none(one))]
        if len(given) > 1:
            raise problem(f"must be one picture, and {len(given)} were sent")
        value = given[0] if given else ""
    if isinstance(value, Inline):
        return value
    if not isinstance(value, str):
        raise problem("must be a URL, a base64 string or a data URI")
    return clean(value)


def to_anchor(value: JsonValue) -> tuple[float, float]:
    """Read where a picture lies on its canvas: shares of the room on its left and above it."""
    words = to_id(value).lower().replace("_", "-").replace(" ", "-").split("-")
    across = {"left": 0.0, "right": 1.0}
    down = {"top": 0.0, "bottom": 1.0}
    known = {*across, *down, "center", "centre", "middle"}
    if len(words) > 2 or not known.issuperset(words):
        raise problem("must be center, left, right, top, bottom, top-left or the like")
    found = [[ways[word] for word in words if word in ways] for ways in (across, down)]
    if any(len(shares) > 1 for shares in found):
        raise problem("must be one place")
    x, y = (shares[0] if shares else 0.5 for shares in found)
    return x, y


def to_room(value: JsonValue) -> tuple[int, int, int, int]:
    """Read pixels on the left, above, on the right and below: an object, a list or comma list.

    One number is for all sides; an object may leave sides out.
    """
    names = ("left", "top", "right", "bottom")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value[:1000])
        except ValueError:
            raise problem("must be pixels for left, top, right and bottom") from None
    if isinstance(value, dict):
        if not set(value) <= set(names):
            raise problem("must be pixels for left, top, right and bottom")
        value = [value.get(name, 0) for name in names]
    if isinstance(value, str):
        value = [*value[:1000].split(",")]
    parts = value if isinstance(value, list) else [value]
    sides = [0 if is_absent(part) else to_int(part) for part in parts]
    sides = sides * 4 if len(sides) == 1 else sides
    if len(sides) != 4:
        raise problem("must be one number or four: left, top, right, bottom")
    left, top, right, bottom = sides
    return left, top, right, bottom


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
    """Read a track_id: anything small, given back as it was sent, blanks included."""
    kept = _storable_json(value)
    if len(json.dumps(kept, ensure_ascii=False)) > _MAX_TRACK_ID:
        raise problem(_TOO_LONG_TRACK_ID)
    return kept


def _storable_json(value: Value) -> JsonValue:
    if isinstance(value, Inline):
        raise problem(_TOO_LONG_TRACK_ID)
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [_storable_json(item) for item in value]
    if isinstance(value, dict):
        return {storable(name): _storable_json(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise problem("must be a finite number")
    if isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise problem("must be an integer of at most 64 bits")
    return value
