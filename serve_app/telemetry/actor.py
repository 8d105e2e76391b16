"""Who acts: for the log of what operators do. Bound to a task, and to what it starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["acting_as", "actor", "set_actor"]

_SERVICE = "service"  # nobody said who: a deploy, or the service by itself
_actor: ContextVar[str] = ContextVar("actor", default=_SERVICE)


def actor() -> str:
    """Return who acts: `cli:NAME`, `admin:ADDRESS`, `key:ID`, or the service by itself."""
    return _actor.get()


def set_actor(name: str) -> None:
    """Note who acts until the current task ends."""
    _actor.set(name)


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Note who acts in this block."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)
