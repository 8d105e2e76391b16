"""Width and height: the lenient rule of V3 and V4, the strict one of V6 and V7; upscaling."""

from serve_app.api.schemas import GenerationBody, field_message
from serve_app.config import HttpConfig
from serve_app.models import ModelEntry
from serve_app.types import Api

__all__ = ["problems", "side"]

_MIN_PX = 64  # below, the UNets have nothing left to downsample
_STRICT_MIN_PX = 256  # V6 and V7, 2026 page "error codes"
_MAX_PX = 1024  # all eras of the API


def problems(
    body: GenerationBody, api: Api, entry: ModelEntry, http: HttpConfig
) -> dict[str, list[str]]:
    """Say what is wrong with the asked sizes; empty when they are fine."""
    find = _strict_problem if api in (Api.V6, Api.V7) else _lenient_problem
    asked = {"width": body.width, "height": body.height}
    found = {
        name: find(value, entry.size_multiple_px)
        for name, value in asked.items()
        if value is not None
    }
    painted_px = side(body.width, entry) * side(body.height, entry)
    if body.upscale > 1 and painted_px * body.upscale**2 > http.max_output_pixels:
        found["upscale"] = f"may not give more than {http.max_output_pixels} pixels"
    return {name: [field_message(name, text)] for name, text in found.items() if text}


def side(asked: int | None, entry: ModelEntry) -> int:
    """Pixels of one side; a side that was not asked for is the model's own."""
    wanted = entry.native_size_px if asked is None else asked
    return min(wanted, _MAX_PX) // entry.size_multiple_px * entry.size_multiple_px


def _lenient_problem(value: int, _multiple_px: int) -> str | None:
    return f"must be at least {_MIN_PX}" if value < _MIN_PX else None


def _strict_problem(value: int, multiple_px: int) -> str | None:
    if not _STRICT_MIN_PX <= value <= _MAX_PX:
        return f"must be between {_STRICT_MIN_PX} and {_MAX_PX}"
    return f"must be divisible by {multiple_px}" if value % multiple_px else None
