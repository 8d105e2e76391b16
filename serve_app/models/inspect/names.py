"""`Names`: the names of a file's tensors, and which of them match a pattern."""

import functools
import re
from collections.abc import Iterator, Mapping

from serve_app.models.weights.header import Tensor

__all__ = ["Names"]

_MAX_LETTERS = 256  # of a name that is searched; a search takes their square. Real ones have 120.


class Names:
    """Tensors by name, in the order of the file.

    Patterns are what the tables of `layouts` are written in: names, with `*` for anything, `#` for
    a number, and `(a|b)` and `(a)?` as in regular expressions.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        # One text for all: a search in it is one call, and a checkpoint has thousands of names.
        short = (name for name in tensors if len(name) <= _MAX_LETTERS)
        self._text = "\n".join(["", *short, ""])

    def find(self, pattern: str) -> str | None:
        """Name the first tensor that matches as a whole."""
        return next(self.find_all(pattern), None)

    def find_all(self, pattern: str) -> Iterator[str]:
        """Name all that match, in order."""
        if not _is_pattern(pattern):  # the common case, and a look in a dict
            if pattern in self.tensors:
                yield pattern
            return
        if not all(piece in self._text for piece in _pieces(pattern)):
            return  # mostly so, and much cheaper than the search
        for match in _compiled(pattern).finditer(self._text):
            if match[1] in self.tensors:  # a name may hold a line break
                yield match[1]

    def size(self, pattern: str, axis: int) -> int | None:
        """Return a size of the first tensor that matches; None: there is no such axis."""
        name = self.find(pattern)
        shape = () if name is None else self.tensors[name].shape
        return shape[axis] if -len(shape) <= axis < len(shape) else None


_GROUP = re.compile(r"\([^()]*\)\??|\[[^]]*\]")
_SPECIAL = re.compile(r".\?|[*#]")


def _is_pattern(text: str) -> bool:
    return any(letter in text for letter in "*#(|?")


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Begin with a line break: the search then skips from one name to the next."""
    plain = pattern.replace(".", r"\.").replace("*", r"[^\n]*").replace("#", r"\d+")
    return re.compile(rf"\n({plain})(?=\n)")


@functools.cache
def _pieces(pattern: str) -> tuple[str, ...]:
    """Return the pieces that all matches hold."""
    while (shorter := _GROUP.sub("*", pattern)) != pattern:  # the innermost groups go first
        pattern = shorter
    return tuple(_SPECIAL.split(pattern))
