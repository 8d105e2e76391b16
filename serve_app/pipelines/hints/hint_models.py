"""`HintModels`: draws the control pictures that take a model, by those that the operator names.

Imports no torch before there is something to draw: who serves without such models does not pay.
"""

from collections.abc import Callable, Sequence
from threading import Lock

from serve_app import errors
from serve_app.config import HintsConfig
from serve_app.types import ControlType, Picture

__all__ = ["HintModels"]

Draw = Callable[[Picture], Picture]


class HintModels:
    """`draw` is safe to call from several threads; nothing is loaded until it is asked for."""

    def __init__(self, config: HintsConfig) -> None:
        self._config = config
        self._lock = Lock()
        self._depth: Draw | None = None

    def draw(
        self, hints: Sequence[ControlType | None], pictures: Sequence[Picture | None]
    ) -> tuple[Picture | None, ...]:
        """Draw what a model is named for, once for equal hints; the other pictures stay. Blocks.

        Raises:
            errors.GenerationFailed: a model cannot be loaded, or gives no numbers.
        """
        drawn: dict[ControlType, Picture] = {}
        for hint, picture in zip(hints, pictures, strict=True):
            if hint is ControlType.DEPTH and picture is not None and hint not in drawn:
                drawn[hint] = self._depth_model()(picture)
        pairs = zip(hints, pictures, strict=True)
        return tuple(drawn.get(hint, one) if hint else one for hint, one in pairs)

    def _depth_model(self) -> Draw:
        from serve_app.pipelines.depth import DepthHints  # noqa: PLC0415  # torch

        with self._lock:
            if self._depth is None:
                if self._config.depth is None:  # another replica's configuration has it
                    raise errors.GenerationFailed("hints.depth names no model")
                self._depth = DepthHints(self._config.depth, self._config.device).draw
            return self._depth
