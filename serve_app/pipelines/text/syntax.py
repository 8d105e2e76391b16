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
_BREAK = re.compile(r"\bBREAK\b")  # in capitals, as A1111 wants it
_TOKENS = re.compile(
    r"""
    \\(?P<escaped>[\\()\[\]])
    | (?P<open>[(\[])
    | :\s{0,8}(?P<weight>[+-]?(?:\d{1,16}(?:\.\d{0,16})?|\.\d{1,16}))\s{0,8}\)
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
class _Bracket:
    """An opened bracket. factor: of what is inside; known when it is closed."""

    kind: str
    factor: float


def parse(prompt: str) -> list[Span]:
    """Split a prompt into spans of equal weight. Any text is a prompt; there are no errors.

    Takes time in proportion to the text, however many brackets it opens.
    """
    spans: list[Span] = []
    weights = [1.0]  # of what stands at each depth
    for part in _read(prompt):
        if isinstance(part, str):
            spans.append(Span(part, weights[-1]))
        elif part is None:
            weights.pop()
        else:
            weights.append(_bounded(weights[-1] * part.factor))
    return _merge(spans)


def _read(prompt: str) -> list[str | _Bracket | None]:
    """Read texts and opened brackets; None where the last one opened is closed."""
    parts: list[str | _Bracket | None] = []
    opened: list[_Bracket] = []
    for match in _TOKENS.finditer(prompt):
        kind, text = match.lastgroup, match.group(match.lastgroup or 0)
        if kind == "open":
            opened.append(_Bracket(text, _ROUND if text == "(" else _SQUARE))
            parts.append(opened[-1])
        elif kind == "weight" and opened and opened[-1].kind == "(":
            opened.pop().factor = _bounded(float(text))
            parts.append(None)
        elif kind == "close" and opened and opened[-1].kind == {")": "(", "]": "["}[text]:
            opened.pop()
            parts.append(None)
        else:
            parts.append(text if kind == "escaped" else match.group())
    return parts


def sections(spans: Sequence[Span]) -> list[list[Span]]:
    """Divide spans at each `BREAK`; gives at least one section, and no empty ones beside it."""
    divided: list[list[Span]] = [[]]
    for span in spans:
        first, *others = _BREAK.split(span.text)
        if others:  # blanks beside the word go with it
            first = first.rstrip()
            others = [*(text.strip() for text in others[:-1]), others[-1].lstrip()]
        divided[-1].append(Span(first, span.weight))
        divided += [[Span(text, span.weight)] for text in others]
    filled = [[span for span in section if span.text] for section in divided]
    return [section for section in filled if section] or [[]]


def _bounded(weight: float) -> float:
    return max(-_MAX_WEIGHT, min(_MAX_WEIGHT, weight))


def _merge(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].weight == span.weight:
            merged[-1] = Span(merged[-1].text + span.text, span.weight)
        else:
            merged.append(span)
    return merged
