"""Values of `types.py` to and from the text columns of the job database.

Plain ASCII JSON: NUL and lone surrogates are escaped, so that every database takes what pydantic
took. pydantic itself refuses lone surrogates in JSON, or replaces them.
"""

import json
import math
import re
from typing import TypeVar

from pydantic import BaseModel

from serve_app import errors
from serve_app.models.entry import Entry, read_entry
from serve_app.models.revision import asked_id, canary_id
from serve_app.types import JobRequest

__all__ = [
    "check_request",
    "check_text",
    "dump",
    "dump_entry",
    "escape",
    "load",
    "load_entry",
    "load_known",
    "share",
    "with_columns",
]

T = TypeVar("T", bound=BaseModel)
_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")  # PostgreSQL takes no NUL, no driver a surrogate


def dump(value: BaseModel) -> str:
    """Serialise to ASCII JSON; the values hold nothing but enums, tuples and JSON types.

    A field that has been renamed since keeps its old key, as its `serialization_alias`. Of a
    request only what differs from the defaults is written, so that programs of the version before
    can read those that ask for nothing new; the defaults may therefore never change.
    """
    is_request = isinstance(value, JobRequest)
    values = value.model_dump(by_alias=True, exclude_defaults=is_request)
    if isinstance(
        value, JobRequest
    ):  # whether it is for a canary, a column says, which those programs pass over
        values["spec"]["model_id"] = asked_id(value.spec.model_id)
    return json.dumps(values, separators=(",", ":"))


def load(kind: type[T], text: str) -> T:
    """Read back what `dump` wrote; a `ValueError` says that another version wrote it.

    What a later version added to a result is passed over, for it says nothing that matters here. A
    request with more than this version knows is another request: to run it would paint something
    else.
    """
    values = json.loads(text)
    return kind.model_validate(values, extra=None if kind is JobRequest else "ignore")


def with_columns(
    request: JobRequest, *, priority: int, traceparent: str, is_canary: bool
) -> JobRequest:
    """Fill in what is kept beside a request, where programs of other versions pass it over."""
    values: dict[str, object] = {"priority": priority, "traceparent": traceparent}
    if is_canary:
        model_id = canary_id(request.spec.model_id)
        values["spec"] = request.spec.model_copy(update={"model_id": model_id})
    return request.model_copy(update=values)


def load_known(text: str) -> JobRequest:
    """Read what this version knows of a request: enough to tell how it ended, never to run it.

    Raises:
        ValueError: it is not even that.
    """
    return JobRequest.model_validate(json.loads(text), extra="ignore")


def dump_entry(entry: Entry) -> str:
    """Serialise what the operator wrote of an entry; what he left out follows the defaults."""
    return json.dumps(entry.model_dump(mode="json", exclude_unset=True), separators=(",", ":"))


def load_entry(text: str) -> Entry:
    """Read back what `dump_entry` wrote; a `ValueError` says that another version wrote it."""
    return read_entry(json.loads(text))


def escape(text: str) -> str:
    """Make JSON text storable without changing what it says."""
    return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def check_text(field: str, text: str) -> str:
    """Refuse what goes to a text column as it is and that a database would refuse later.

    Raises:
        errors.InvalidRequest: the text holds NUL or a lone surrogate.
    """
    if _UNSTORABLE.search(text):
        raise errors.InvalidRequest(
            field, f"The {field} field contains characters that are not valid text."
        )
    return text


def check_request(request: JobRequest) -> JobRequest:
    """Refuse a request when it comes, not when its webhook is due.

    Raises:
        errors.InvalidRequest: NUL or a lone surrogate in a model id, key id or webhook URL.
    """
    check_text("model_id", request.spec.model_id)
    check_text("key", request.key_id)
    check_text("webhook", request.webhook or "")
    return request


def share(value: float) -> float:
    """Limit a progress to 0 to 1; a driver's slip must not make the row unreadable."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
