"""The settings as a Markdown page: `docs/configuration.md` is this text, and a test compares."""

from collections.abc import Iterator
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from serve_app.config.app import AppConfig
from serve_app.config.fields import section_of, with_defaults

__all__ = ["markdown"]

_HEAD = """# Settings

Every setting, its default and its meaning; written by `dreamserve settings`. Set them under `args`
of the Serve config file (`configs/dev.yaml`), or by the environment variable named in each row,
which wins; lists are written as JSON there. Unknown names are refused. The effective configuration
is logged once per ingress, with secrets masked. Secrets belong into the environment only.
"""


def markdown() -> str:
    """Write the page."""
    lines = [_HEAD]
    top = {n: f for n, f in AppConfig.model_fields.items() if section_of(f) is None}
    lines += _table("", top)
    for name, field in AppConfig.model_fields.items():
        section = section_of(field)
        if section is None:
            continue
        lines += [f"\n## {name}\n", f"{_summary(section)}\n"]
        lines += _table(name, section.model_fields)
    return "\n".join(lines) + "\n"


def _table(path: str, fields: dict[str, FieldInfo]) -> list[str]:
    rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    rows += [f"| {' | '.join(row)} |" for row in _rows(path, fields)]
    return rows


def _rows(path: str, fields: dict[str, FieldInfo]) -> Iterator[tuple[str, str, str, str]]:
    for name, field in fields.items():
        full = f"{path}__{name}" if path else name
        section = section_of(field)
        if section is not None:
            yield from _rows(full, with_defaults(section, field.default))
            continue
        meaning = (field.description or "").replace("|", "\\|")
        yield f"`DREAMSERVE_{full.upper()}`", _type(field.annotation), _default(field), meaning


def _summary(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "working folder"
    if field.default in (None, PydanticUndefined, (), {}):
        return "none"
    if isinstance(field.default, tuple):
        return "`" + ", ".join(str(item) for item in field.default) + "`"
    return f'`"{field.default}"`' if field.default == "" else f"`{field.default}`"


def _type(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return " \\| ".join(
            f'"{value}"' if value == "" else str(value) for value in get_args(annotation)
        )
    if get_origin(annotation) in (Union, UnionType):
        return _type(next(item for item in get_args(annotation) if item is not type(None)))
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"{_type(get_args(annotation)[1])} by name"
    if args := get_args(annotation):
        return _type(args[0])
    names = {"str": "text", "bool": "true \\| false", "float": "number", "int": "whole number"}
    name = getattr(annotation, "__name__", str(annotation))
    return {**names, "Path": "path", "SecretStr": "secret", "AuthMode": "open \\| keys"}.get(
        name, name
    )
