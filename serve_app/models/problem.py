"""What is wrong with an entry, field by field, worded for its author.

pydantic's own texts name classes and types of ours that nobody outside has heard of.
"""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serve_app import errors

__all__ = ["problems"]

_MAX_PROBLEMS = 20  # a body can have a hundred thousand

_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this kind of entry",
    "string_type": "must be a text",
    "string_too_long": "may not be longer than {max_length} characters",
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
    "value_error": "{error}",
}


def problems(error: ValidationError, values: object) -> dict[str, list[str]]:
    """Word what pydantic found in these values, by the name of the field; values are not repeated.

    What is wrong with the entry as a whole has the name "entry".
    """
    found: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False)[:_MAX_PROBLEMS]:
        field = _field(detail, values)
        sentence = _SENTENCES.get(detail["type"], "is not valid")
        text = f"{field}: {sentence.format(**detail.get('ctx', {}))}"
        if text not in found.setdefault(field, []):
            found[field].append(text)
    return found


def _field(detail: ErrorDetails, values: object) -> str:
    """Name the field as its writer knows it: without the steps that are pydantic's alone."""
    names: list[str] = []
    for step in detail["loc"]:
        if isinstance(values, dict) and step in values:
            values = values[step]
        elif not (isinstance(values, list) and isinstance(step, int)):
            continue
        names.append(errors.echoed(step))
    if detail["type"] == "missing":
        names.append(str(detail["loc"][-1]))
    return ".".join(names) or "entry"
