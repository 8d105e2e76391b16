"""The settings as a tree: which fields are sections, and the names of all the others."""

from collections.abc import Iterator
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["paths", "section_of", "with_defaults"]


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


def with_defaults(section: type[BaseModel], default: object) -> dict[str, FieldInfo]:
    """Return the fields of a section with the defaults that its parent gives it, if it does."""
    if default is None or default is PydanticUndefined:
        return section.model_fields
    fields = {}
    for name, field in section.model_fields.items():
        changed = field._copy()
        changed.default = getattr(default, name)
        fields[name] = changed
    return fields
