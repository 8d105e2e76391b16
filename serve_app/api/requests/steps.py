"""Steps and strength: which name counts, and that at least one step is left to run.

A model may run few steps only. Then steps are lowered, but never so far that nothing of `strength`
would be left: a schedule of one step paints over the whole of any init picture.
"""

import math

from serve_app.api.requests.outpaint import has_outpaint
from serve_app.api.requests.schemas import GenerationBody, field_message
from serve_app.models import ModelEntry
from serve_app.types import Kind

__all__ = ["of", "problems"]

_MIN_STEPS, _MAX_STEPS = 1, 50  # API page "steps": out of range is clamped, not refused


def of(body: GenerationBody, kind: Kind, entry: ModelEntry) -> tuple[int, float]:
    """Return the steps of the noise schedule, and the share of it that runs."""
    steps, strength = _wanted(body, kind, entry)
    if entry.max_steps is not None and strength > 0:
        steps = min(steps, max(entry.max_steps, math.ceil(1 / strength)))
    return steps, strength


def _wanted(body: GenerationBody, kind: Kind, entry: ModelEntry) -> tuple[int, float]:
    """Return steps and strength as they were before the model's own limit."""
    _, asked = _asked(body, kind)
    steps = entry.defaults.steps if asked is None else asked
    default = 1.0 if has_outpaint(body) else entry.defaults.strength  # nothing is there to keep
    strength = default if body.strength is None else body.strength
    return (
        min(max(steps, _MIN_STEPS), _MAX_STEPS),
        1.0 if kind is Kind.TEXT2IMG else strength,
    )


def problems(body: GenerationBody, kind: Kind, entry: ModelEntry) -> dict[str, list[str]]:
    """Report the field by which not a single step would run; empty if one does."""
    steps, strength = _wanted(body, kind, entry)
    if int(steps * strength) >= 1:
        return {}
    field, asked = _asked(body, kind)
    if asked is None or (body.strength is not None and asked >= _MIN_STEPS):
        return _too_small("strength", "these steps")
    return _too_small(field, "this strength")


def _asked(body: GenerationBody, kind: Kind) -> tuple[str, int | None]:
    """Take the name that the page of this kind documents first, then the other one."""
    both = [("num_inference_steps", body.num_inference_steps), ("steps", body.steps)]
    if kind is Kind.INPAINT:
        both.reverse()
    return next((one for one in both if one[1] is not None), both[0])


def _too_small(field: str, beside: str) -> dict[str, list[str]]:
    return {field: [field_message(field, f"is too small: with {beside} not one would run")]}
