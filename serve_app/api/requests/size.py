"""Width and height: the lenient rule of V3 and V4, the strict one of V6 and V7; upscaling.

Pictures are not read where calls are accepted. A side that nobody asked for is the model's own for
text to image; with an init picture `fit` says how the picture will decide it.
"""

from collections.abc import Callable

from serve_app.api.requests.control import has_control
from serve_app.api.requests.outpaint import has_outpaint
from serve_app.api.requests.schemas import GenerationBody, field_message
from serve_app.config import HttpConfig
from serve_app.models import ModelEntry
from serve_app.types import Api, Fit, Kind

__all__ = ["fit", "of", "problems"]

_MIN_PX = 64  # below, the UNets have nothing left to downsample
_STRICT_MIN_PX = 256  # V6 and V7, 2026 page "error codes"
_MAX_PX = 1024  # all eras of the API
_PANORAMA = 4  # width of a panorama by the native size; MultiDiffusion's own is 2048 by 512


def problems(
    body: GenerationBody, api: Api, entry: ModelEntry, http: HttpConfig
) -> dict[str, list[str]]:
    """Return what is wrong with the requested sizes; empty if nothing is."""
    find = _rule(body, api)
    max_height = http.max_outpaint_side_px if has_outpaint(body) else _MAX_PX
    asked = {"width": (body.width, _max_width(body, http)), "height": (body.height, max_height)}
    found = {
        name: find(value, max_px, entry.size_multiple_px)
        for name, (value, max_px) in asked.items()
        if value is not None
    }
    height, width = of(body, entry, http)
    if body.upscale > 1 and height * width * body.upscale**2 > http.max_output_pixels:
        found["upscale"] = f"may not give more than {http.max_output_pixels} pixels"
    return {name: [field_message(name, text)] for name, text in found.items() if text}


def of(body: GenerationBody, entry: ModelEntry, http: HttpConfig) -> tuple[int, int]:
    """Height and width to paint, or to expect where `fit` says that the init picture decides."""
    native_px = entry.native_size_px
    width = native_px * _PANORAMA if body.panorama else native_px
    return (
        _capped(native_px if body.height is None else body.height, _MAX_PX, entry),
        _capped(width if body.width is None else body.width, _max_width(body, http), entry),
    )


def fit(body: GenerationBody, kind: Kind, entry: ModelEntry, http: HttpConfig) -> Fit | None:
    """Return how the init or control picture decides the size; None if nothing is left to it."""
    has_picture = kind is not Kind.TEXT2IMG or has_control(body)
    if not has_picture or (body.height is not None and body.width is not None):
        return None
    height, width = of(body, entry, http)
    return Fit(
        height=None if body.height is None else height,
        width=None if body.width is None else width,
        area_px=entry.native_size_px**2,
        multiple_px=entry.size_multiple_px,
        min_px=-(-_MIN_PX // entry.size_multiple_px) * entry.size_multiple_px,
        max_px=_MAX_PX // entry.size_multiple_px * entry.size_multiple_px,
        max_area_px=http.max_output_pixels // body.upscale**2,
    )


def _capped(wanted: int, max_px: int, entry: ModelEntry) -> int:
    return min(wanted, max_px) // entry.size_multiple_px * entry.size_multiple_px


def _max_width(body: GenerationBody, http: HttpConfig) -> int:
    if has_outpaint(body):
        return http.max_outpaint_side_px
    return http.max_panorama_width_px if body.panorama else _MAX_PX


def _rule(body: GenerationBody, api: Api) -> Callable[[int, int, int], str | None]:
    if api in (Api.V6, Api.V7):
        return _strict_problem
    # The sides of what grows are not brought down to a limit.
    return _canvas_problem if has_outpaint(body) else _lenient_problem


def _lenient_problem(value: int, _max_px: int, _multiple_px: int) -> str | None:
    return f"must be at least {_MIN_PX}" if value < _MIN_PX else None


def _canvas_problem(value: int, max_px: int, _multiple_px: int) -> str | None:
    return None if _MIN_PX <= value <= max_px else f"must be between {_MIN_PX} and {max_px}"


def _strict_problem(value: int, max_px: int, multiple_px: int) -> str | None:
    if not _STRICT_MIN_PX <= value <= max_px:
        return f"must be between {_STRICT_MIN_PX} and {max_px}"
    return f"must be divisible by {multiple_px}" if value % multiple_px else None
