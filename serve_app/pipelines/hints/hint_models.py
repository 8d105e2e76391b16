"""`HintModels`: draws the control pictures that take a model, by those that the operator names.

Imports no torch before there is something to draw: who serves without such models does not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from serve_app import errors
from serve_app.config import HintsConfig
from serve_app.types import ControlType, Picture

if TYPE_CHECKING:
    from serve_app.pipelines.hints.hint_model import HintModel

__all__ = ["HintModels"]

_POSES = (ControlType.OPENPOSE, ControlType.POSE)  # two names of one thing


class HintModels:
    """`draw` is safe to call from several threads; nothing is loaded until it is asked for."""

    def __init__(self, config: HintsConfig) -> None:
        self._config = config
        self._lock = Lock()
        self._made: dict[ControlType, HintModel] = {}

    def draw(
        self, hints: Sequence[ControlType | None], pictures: Sequence[Picture | None]
    ) -> tuple[Picture | None, ...]:
        """Draw what a model is named for, once for equal hints; the other pictures stay. Blocks.

        Raises:
            errors.GenerationFailed: a model cannot be loaded, or gives no numbers.
        """
        drawn: dict[ControlType, Picture] = {}
        for hint, picture in zip(hints, pictures, strict=True):
            if hint is None or picture is None or hint.setting is None or hint in drawn:
                continue
            drawn[hint] = self._model(hint).draw(picture)
        pairs = zip(hints, pictures, strict=True)
        return tuple(drawn.get(hint, one) if hint else one for hint, one in pairs)

    def _model(self, hint: ControlType) -> HintModel:
        with self._lock:
            if hint not in self._made:
                self._made[hint] = self._make(hint)
            return self._made[hint]

    def _make(self, hint: ControlType) -> HintModel:
        from serve_app.pipelines.hints import depth, lines, pose, segmentation  # noqa: PLC0415  # torch

        config, paths = self._config, self._config.paths
        path = paths.get(hint.setting or "")
        if path is None:  # another replica's configuration has it
            raise errors.GenerationFailed(f"hints.{hint.setting} names no model")
        if hint in _POSES:
            made = pose.PoseHints(path, paths["people"], config.max_people, config.device)
            return self._made.setdefault(_POSES[0], made)
        kinds: dict[ControlType, Callable[[Path, str], HintModel]] = {
            ControlType.DEPTH: depth.DepthHints,
            ControlType.NORMAL: depth.NormalHints,
            ControlType.SEGMENTATION: segmentation.SegmentationHints,
            ControlType.HED: lines.EdgeHints,
            ControlType.SOFTEDGE: lines.SafeEdgeHints,
            ControlType.LINEART: lines.DrawingHints,
            ControlType.MLSD: lines.WireframeHints,
        }
        return kinds[hint](path, config.device)
