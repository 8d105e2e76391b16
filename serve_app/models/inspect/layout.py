"""`Layout`: a row of the table of layouts, and `Sign`: what a tensor means."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.models.inspect.inspection import Family, FileType
from serve_app.models.inspect.names import Names

__all__ = ["Families", "Layout", "Sign", "first_meaning"]

T = TypeVar("T")
Families = tuple[Family, ...]


@dataclass(frozen=True, slots=True)
class Sign(Generic[T]):
    """What a tensor means: the first that matches, if its `axis` has this size."""

    means: T
    pattern: str
    axis: int = 0
    size: int | None = None

    def holds(self, names: Names) -> bool:
        """Whether the file has it."""
        if self.size is None:
            return names.find(self.pattern) is not None
        return names.size(self.pattern, self.axis) == self.size


def first_meaning(signs: tuple[Sign[T], ...], names: Names) -> T | None:
    """Return what the first sign means that the file has."""
    return next((sign.means for sign in signs if sign.holds(names)), None)


@dataclass(frozen=True, slots=True)
class Layout:
    """A row.

    keys: patterns; each has to match a tensor.
    without: patterns; none may match.
    num_tensors: of the file; None: any number.
    sign: a size that has to be there too.
    families: that all such files fit; or
    family_signs: what tells them.
    variants: what tells the kinds of one family.
    channels: tensor, axis, and by what its size is to be divided, for the channels of latents.
    """

    name: str
    type: FileType
    keys: tuple[str, ...]
    without: tuple[str, ...] = ()
    num_tensors: int | None = None
    sign: Sign[bool] | None = None
    families: Families = ()
    family_signs: tuple[Sign[Families], ...] = ()
    variants: tuple[Sign[str], ...] = ()
    channels: tuple[str, int, int] | None = None

    def matches(self, names: Names) -> bool:
        """Whether a file is of it."""
        return (
            all(names.find(key) for key in self.keys)
            and self.num_tensors in (None, len(names.tensors))
            and (self.sign is None or self.sign.holds(names))
            and not any(names.find(key) for key in self.without)
        )
