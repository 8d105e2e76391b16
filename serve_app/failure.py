"""What a job row says of an error."""

from serve_app import errors
from serve_app.types import JobFailure

__all__ = ["to_failure"]


def to_failure(error: BaseException) -> JobFailure:
    """Describe an error for the job row; an unknown one says nothing about itself."""
    if isinstance(error, errors.DreamserveError):
        return JobFailure(code=error.code, message=error.public_message, fields=error.fields)
    return JobFailure(code=errors.GenerationFailed.code, message=errors.GenerationFailed.message)
