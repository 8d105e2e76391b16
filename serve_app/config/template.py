"""A Serve config file with every setting in it, explained; those that are not given as comments.

Prose begins with `##`, a setting that has its default with `#`: remove that sign to change it.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum

from pydantic import JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from serve_app.config.app import AppConfig
from serve_app.config.fields import section_of, with_defaults

__all__ = ["settings"]

_WIDTH = 96
_STEP = "  "


def settings(given: Mapping[str, JsonValue], indent: str) -> str:
    """Write all settings as YAML, these as they are given, by section."""
    return "\n".join(_fields(AppConfig.model_fields, given, indent, "")) + "\n"


def _fields(
    fields: Mapping[str, FieldInfo], given: Mapping[str, JsonValue], indent: str, mark: str
) -> Iterator[str]:
    """Write the fields of a section; mark: `# ` below a section that is itself a comment."""
    for name, field in fields.items():
        section = section_of(field)
        if section is None:
            yield from _setting(name, field, given, indent, mark)
            continue
        inner = given.get(name)
        values = inner if isinstance(inner, dict) else {}
        sign = mark or ("" if name in given else "# ")
        yield ""
        yield from _prose((section.__doc__ or "").strip().splitlines()[0], indent)
        yield f"{indent}{sign}{name}:"
        deeper = indent + _STEP if not sign else indent
        depth = _depth(mark) + 1 if sign else 0
        below = with_defaults(section, field.default)
        yield from _fields(below, values, deeper, "# " + _STEP * depth if sign else "")


def _setting(
    name: str, field: FieldInfo, given: Mapping[str, JsonValue], indent: str, mark: str
) -> Iterator[str]:
    if field.description:
        yield from _prose(field.description, indent)
    if name in given:
        yield f"{indent}{mark}{name}: {json.dumps(given[name])}"
    else:
        yield f"{indent}{mark or '# '}{name}: {_default(field)}"


def _prose(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{indent}## ", subsequent_indent=f"{indent}## "
    )


def _depth(mark: str) -> int:
    return len(mark.removeprefix("# ")) // len(_STEP)


def _default(field: FieldInfo) -> str:
    """Write a default as YAML; what has none, or one that the machine decides, is left open."""
    if field.default is PydanticUndefined:
        return "null"
    return json.dumps(_plain(field.default))


def _plain(value: object) -> JsonValue:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {} if isinstance(value, dict) else str(value)
