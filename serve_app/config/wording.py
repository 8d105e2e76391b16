"""What is wrong with a value, worded for its author.

pydantic's own texts name classes and types of ours that nobody outside has heard of.
"""

import difflib
from collections.abc import Iterable

from pydantic_core import ErrorDetails

__all__ = ["sentence", "suggestion"]

_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this kind of entry",
    "string_type": "must be a text",
    "string_too_long": "may not be longer than {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "must have at least {min_length}",
    "too_long": "may have at most {max_length}",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "path_type": "must be a path",
    "value_error": "{error}",
}


def sentence(detail: ErrorDetails) -> str:
    """Return what pydantic found, without the name of the field and without the value."""
    text = _SENTENCES.get(detail["type"], "is not valid")
    return text.format(**detail.get("ctx", {}))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` where a name is close to a known one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
