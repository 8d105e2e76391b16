"""From a catalogue entry to a `Painter`: checkpoints, kinds, samplers, prompts, crops, pictures.

Knows no loop (`engine/`) and nothing of the service. Importing the package does not import torch;
`load_painter` does.
"""

from serve_app.config import EngineConfig
from serve_app.engine.protocol import Painter
from serve_app.models import ModelEntry
from serve_app.pipelines.fake import FakePainter

__all__ = ["FakePainter", "load_painter"]


def load_painter(entry: ModelEntry, config: EngineConfig) -> Painter:
    """Load a model's weights and start its engine. Blocks, for minutes with large weights.

    Raises:
        OSError: no such file, or it is no checkpoint.
        ValueError: an architecture that is not served.
    """
    # Here and not above: the painter needs torch, the fake does not.
    from serve_app.pipelines.loader import load_checkpoint  # noqa: PLC0415
    from serve_app.pipelines.painter import WeavePainter  # noqa: PLC0415

    return WeavePainter(entry, config, load_checkpoint(entry, config))
