"""Processes below this one, by what their command lines say; they may end while one looks."""

from collections.abc import Iterator

import psutil

__all__ = ["descendants"]


def descendants() -> Iterator[tuple[psutil.Process, str]]:
    """Yield each process that lives, and its command line; Ray writes the actor and its method."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline()).rstrip()
        except psutil.Error:
            continue
        if title:  # which a zombie has not
            yield process, title
