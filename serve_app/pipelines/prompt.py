r"""A1111's prompt syntax: `(x)` stresses by 1.1, `[x]` by 1/1.1, `(x:1.3)` by 1.3, `\(` is `(`.

Brackets nest and multiply. One that is never closed stresses all that follows. Pure Python.

Source: the syntax page of the A1111 web UI, "Attention/emphasis", 2023.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Span", "is_plain", "parse"]

_ROUND = 1.1
_SQUARE = 1 / 1.1
_MAX_WEIGHT = 10.0
_TOKENS = re.compile(
    r"""
    \\(?P<escaped>[\\()\[\]])
    | (?P<open>[(\[])
    | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
    | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text with one weight."""

    text: str
    weight: float = 1.0


@dataclass(slots=True)
class _Open:
    bracket: str
    first: int  # index of the first span inside


def parse(prompt: str) -> list[Span]:
    """Split a prompt into spans of equal weight. Any text is a prompt; there are no errors."""
    spans: list[Span] = []
    opened: list[_Open] = []
    for match in _TOKENS.finditer(prompt):
        kind, text = match.lastgroup, match.group(match.lastgroup or 0)
        if kind == "open":
            opened.append(_Open(text, len(spans)))
        elif kind == "weight" and opened and opened[-1].bracket == "(":
            _scale(spans, opened.pop().first, _bounded(float(text)))
        elif kind == "close" and opened and opened[-1].bracket == {")": "(", "]": "["}[text]:
            _scale(spans, opened.pop().first, _ROUND if text == ")" else _SQUARE)
        else:
            spans.append(Span(text if kind == "escaped" else match.group()))
    for unclosed in reversed(opened):
        _scale(spans, unclosed.first, _ROUND if unclosed.bracket == "(" else _SQUARE)
    return _merge(spans)


def is_plain(spans: Sequence[Span]) -> bool:
    """Whether no span is weighted."""
    return all(span.weight == 1.0 for span in spans)


def _bounded(weight: float) -> float:
    return max(-_MAX_WEIGHT, min(_MAX_WEIGHT, weight))


def _scale(spans: list[Span], first: int, factor: float) -> None:
    spans[first:] = [Span(span.text, _bounded(span.weight * factor)) for span in spans[first:]]


def _merge(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].weight == span.weight:
            merged[-1] = Span(merged[-1].text + span.text, span.weight)
        else:
            merged.append(span)
    return merged
