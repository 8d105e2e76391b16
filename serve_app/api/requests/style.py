"""Styles of `enhance_style`: the words that each name stands for, from a YAML file."""

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from serve_app import errors
from serve_app.api.requests.schemas import GenerationBody
from serve_app.models import ModelEntry

__all__ = ["asked", "problems", "table"]

_TABLE = TypeAdapter(dict[str, str])


@functools.cache
def table(file: Path | None) -> Mapping[str, str]:
    """Read the words by style name; None: the file that comes with the service. Remembered.

    Raises:
        OSError: no such file.
        ValueError: it is no mapping of names to words.
    """
    source = resources.files(__package__) / "styles.yaml" if file is None else file
    return _TABLE.validate_python(yaml.safe_load(source.read_text(encoding="utf-8")))


def asked(body: GenerationBody, styles: Mapping[str, str]) -> str:
    """Words to append; none without a style, and styles are part of the enhancement."""
    return styles.get(body.enhance_style or "", "") if body.enhance_prompt else ""


def problems(
    body: GenerationBody, entry: ModelEntry, styles: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return why a style is unavailable; empty if it is not, or none is asked for."""
    name = body.enhance_style
    if name is None or not body.enhance_prompt:
        return {}
    if not entry.enhancement.styles:
        return {"enhance_style": [f"The model {entry.id} does not know styles."]}
    if name not in styles:
        return {"enhance_style": [f"No style has the name {errors.echoed(name)}."]}
    return {}
