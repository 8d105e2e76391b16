r"""A1111's prompt syntax: `(x)` stresses by 1.1, `[x]` by 1/1.1, `(x:1.3)` by 1.3, `\(` is `(`.

Brackets nest and multiply. One that is never closed stresses all that follows. The word `BREAK`
ends a chunk, inside brackets too. Pure Python.

Source: the syntax page of the A1111 web UI, "Attention/emphasis", 2023.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Span", "parse", "sections"]

_ROUND = 1.1
_SQUARE = 1 / 1.1
_MAX_WEIGHT = 10.0
_BREAK = re.compile(r"\s*\bBREAK\b\s*")  # in capitals, as A1111 wants it
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


def sections(spans: Sequence[Span]) -> list[list[Span]]:
    """Divide spans at each `BREAK`; gives at least one section, and no empty ones beside it."""
    divided: list[list[Span]] = [[]]
    for span in spans:
        first, *others = _BREAK.split(span.text)
        divided[-1].append(Span(first, span.weight))
        divided += [[Span(text, span.weight)] for text in others]
    filled = [[span for span in section if span.text] for section in divided]
    return [section for section in filled if section] or [[]]


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
