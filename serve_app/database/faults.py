"""`translated`: what a database driver raises, as errors of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from serve_app import errors

__all__ = ["translated"]


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver raises into errors of ours."""
    try:
        yield
    except (DataError, UnicodeError) as exc:
        raise errors.InvalidRequest("request", "A text cannot be stored.") from exc
    except (SQLAlchemyError, OSError) as exc:
        raise errors.JobStoreUnavailable(_reason(exc)) from exc


def _reason(exc: Exception) -> str:
    """Word it in one line: what the driver said first; SQLAlchemy adds the statement and a link."""
    said = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    first = next(iter(str(said).splitlines()), "")
    return f"{type(exc).__name__}: {first}"
