"""How a picture is to grow: by pixels on each side, or to a width and height around an anchor.

The hosted API has a call for the latter (API page "Outpainting", 2024 to 2026), without a model.
"""

from collections.abc import Mapping

from serve_app.api.requests.schemas import GenerationBody, OutpaintBody, field_message
from serve_app.config import HttpConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.types import Fill, Kind, Outpaint

__all__ = ["fields", "has_outpaint", "model_id", "problems"]

_OVERLAP_PX = 32  # unless asked for; benchmarks/seams.py
_HOSTED_OVERLAP_PX = 10  # documented default of the call


def has_outpaint(body: GenerationBody) -> bool:
    """Whether the picture is to grow."""
    return body.outpaint is not None or body.anchor is not None


def model_id(body: GenerationBody, catalogue: Catalogue, http: HttpConfig) -> str | None:
    """Return the model of a call that names none: the configured one, else the first to inpaint."""
    if body.model_id is not None or not isinstance(body, OutpaintBody):
        return body.model_id
    if http.outpaint_model is not None:
        return http.outpaint_model
    inpainting = (entry.id for entry in catalogue if Kind.INPAINT in entry.kinds)
    return next(inpainting, None)


def fields(body: GenerationBody, entry: ModelEntry, http: HttpConfig) -> dict[str, object]:
    """Return what a spec says of it; of a request without problems."""
    fill = body.fill or (Fill.BLUR if has_outpaint(body) else Fill.ORIGINAL)
    found: dict[str, object] = {"fill": fill}
    if not has_outpaint(body):
        return found
    default_px = _HOSTED_OVERLAP_PX if isinstance(body, OutpaintBody) else _OVERLAP_PX
    left, top, right, bottom = body.outpaint or (0, 0, 0, 0)
    plan = Outpaint(
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        anchor=body.anchor,
        width=body.width,
        height=body.height,
        overlap_px=default_px if body.overlap_width is None else body.overlap_width,
        multiple_px=entry.size_multiple_px,
        max_side_px=http.max_outpaint_side_px,
        max_area_px=http.max_output_pixels // body.upscale**2,
    )
    return found | {"outpaint": plan, "fit": None} | _expected(plan, entry)


def _expected(plan: Outpaint, entry: ModelEntry) -> dict[str, int]:
    """Guess the size of the result, which only the picture tells."""
    native_px, multiple = entry.native_size_px, plan.multiple_px
    sides = {
        "height": (plan.height or native_px) + plan.top + plan.bottom,
        "width": (plan.width or native_px) + plan.left + plan.right,
    }
    return {name: -(-side // multiple) * multiple for name, side in sides.items()}


def problems(body: GenerationBody, kind: Kind, http: HttpConfig) -> dict[str, list[str]]:
    """Return why a picture cannot grow so, by field; empty if it can or need not."""
    if not has_outpaint(body):
        return {}
    found = _side_problems(body, http)
    if body.overlap_width is not None:
        most = http.max_outpaint_overlap_px
        if not 0 <= body.overlap_width <= most:
            found["overlap_width"] = f"must be between 0 and {most}"
    if body.anchor is not None and body.width is None and body.height is None:
        found["anchor"] = "needs a width or height to grow to"
    if kind is not Kind.INPAINT:
        field = "outpaint" if body.outpaint is not None else "anchor"
        return {field: [f"{field} is for inpainting only."]}
    return _worded(found)


def _side_problems(body: GenerationBody, http: HttpConfig) -> dict[str, str]:
    if body.outpaint is None:
        return {}
    if body.anchor is not None:
        return {"anchor": "cannot be combined with outpaint"}
    if not any(body.outpaint):
        return {"outpaint": "must add at least one pixel"}
    if not all(0 <= side <= http.max_outpaint_side_px for side in body.outpaint):
        return {"outpaint": f"must have sides between 0 and {http.max_outpaint_side_px}"}
    return {}


def _worded(found: Mapping[str, str]) -> dict[str, list[str]]:
    return {field: [field_message(field, text)] for field, text in found.items()}
