"""The process that reads foreign files, by `python -m serve_app.images.worker`.

Arguments: MEMORY_BYTES TIMEOUT_S NICENESS.

`images.isolation` starts it and talks to it: pickled functions come in, what `images.frame` knows
goes out. It ends when its parent does, which closes its input, or by a limit. The limits are the
kernel's, since nothing in Python runs while a decoder is at work in C.
"""

import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import psutil
from PIL import Image, WebPImagePlugin  # noqa: F401  # Pillow would load it with the first WebP

from serve_app import errors
from serve_app.images import prepare, reading, reencode  # noqa: F401  # what it will be asked for
from serve_app.images.frame import OUT_OF_MEMORY, Said, pack

__all__ = ["main"]


def main(memory_bytes: int, timeout_s: float, niceness: int) -> None:
    """Work until the input ends."""
    os.nice(niceness)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand in the output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody is left to work for
    Image.preinit()
    _limit_memory(memory_bytes)

    def say(said: Said) -> None:
        output.write(pack(said))
        output.flush()

    @contextmanager
    def watch(field: str) -> Iterator[None]:
        say(field)
        signal.setitimer(signal.ITIMER_REAL, timeout_s)  # SIGALRM ends the process
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    reading.watch.set(watch)
    say("")
    while (work := _next(sys.stdin.buffer)) is not None:
        say(_result(work))
        del work  # the files in it


def _next(source: BinaryIO) -> Callable[[], Said] | None:
    try:
        work: Callable[[], Said] = pickle.load(source)
    except (EOFError, pickle.UnpicklingError):  # the parent is gone, perhaps while it wrote
        return None
    return work


def _result(work: Callable[[], Said]) -> Said:
    try:
        return work()
    except errors.InvalidImage as exc:
        return exc
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as exc:
        traceback.print_exc()
        return errors.GenerationFailed(type(exc).__name__)


def _limit_memory(memory_bytes: int) -> None:
    if sys.platform == "linux":  # macOS knows the name and refuses the limit
        limit = psutil.Process().memory_info().vms + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a picture of a client would lie in it


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
