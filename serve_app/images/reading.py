"""What surrounds the reading of one foreign file.

Nothing, in the process that wants the picture. A worker process (`images.worker`) sets a watch
that says which field's file is being read and limits the time it may take.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

__all__ = ["Watch", "watch"]

Watch = Callable[[str], AbstractContextManager[None]]


def _nothing(field: str) -> AbstractContextManager[None]:  # noqa: ARG001  # nobody asks for it
    return nullcontext()


watch: ContextVar[Watch] = ContextVar("watch", default=_nothing)
