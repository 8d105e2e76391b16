"""The settings as a tree: which fields are sections, and the names of all the others."""

from collections.abc import Iterator
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["paths", "section_of"]


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, also one that may be left out; None: it is a value."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next((one for one in get_args(kind) if one is not type(None)), None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def paths(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """List every field below a model, sections too, by the names that lead to it."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        section = section_of(field)
        if section is not None:
            yield from paths(section, (*above, name))
