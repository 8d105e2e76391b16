"""What is wrong with an entry, field by field, worded for its author."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serve_app import errors
from serve_app.config.wording import sentence, suggestion
from serve_app.models.entry import FIELDS

__all__ = ["problems"]

_MAX_PROBLEMS = 20  # a body can have a hundred thousand


def problems(error: ValidationError, values: object) -> dict[str, list[str]]:
    """Word what pydantic found in these values, by the name of the field; values are not repeated.

    What is wrong with the entry as a whole has the name "entry".
    """
    found: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False)[:_MAX_PROBLEMS]:
        field = _field(detail, values)
        text = f"{field}: {sentence(detail)}"
        if detail["type"] == "extra_forbidden":
            text += suggestion(field.rpartition(".")[2], FIELDS)
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
