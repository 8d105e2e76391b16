"""What a command says when it cannot do its work: lines for an operator, never a stack trace."""

from serve_app import errors

__all__ = ["lines"]


def lines(error: Exception) -> list[str]:
    """Return a line for each thing that is wrong."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return [f"{where}{error.strerror}"]
    if isinstance(error, errors.InvalidRequest | errors.InvalidFields):
        return [error.public_message]
    return str(error).splitlines() or [type(error).__name__]
