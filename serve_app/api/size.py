"""Width and height: the lenient rule of V3 and V4, the strict one of V6 and V7."""

from serve_app.api.schemas import GenerationBody, field_message
from serve_app.models import ModelEntry
from serve_app.types import Api

__all__ = ["problems", "side"]

_MIN_PX = 64  # below, the UNets have nothing left to downsample
_STRICT_MIN_PX = 256  # V6 and V7, 2026 page "error codes"
_MAX_PX = 1024  # all eras of the API
_MULTIPLE_PX = 8  # one latent is 8 x 8 pixels


def problems(body: GenerationBody, api: Api) -> dict[str, list[str]]:
    """Say what is wrong with the asked sizes; empty when they are fine."""
    find = _strict_problem if api in (Api.V6, Api.V7) else _lenient_problem
    found = {name: find(value) for name, value in (("width", body.width), ("height", body.height))}
    return {name: [field_message(name, text)] for name, text in found.items() if text}


def side(asked: int | None, entry: ModelEntry) -> int:
    """Pixels of one side; a side that was not asked for is the model's own."""
    wanted = entry.native_size_px if asked is None else asked
    return min(wanted, _MAX_PX) // _MULTIPLE_PX * _MULTIPLE_PX


def _lenient_problem(value: int | None) -> str | None:
    return f"must be at least {_MIN_PX}" if value is not None and value < _MIN_PX else None


def _strict_problem(value: int | None) -> str | None:
    if value is None:
        return None
    if not _STRICT_MIN_PX <= value <= _MAX_PX:
        return f"must be between {_STRICT_MIN_PX} and {_MAX_PX}"
    return "must be divisible by 8" if value % _MULTIPLE_PX else None
