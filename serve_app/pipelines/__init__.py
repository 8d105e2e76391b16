"""From a catalogue entry to a `Painter`: checkpoints, kinds, samplers, prompts, crops, pictures.

Knows no loop (`engine/`) and nothing of the service. Importing the package does not import torch;
`load_painter` does.
"""

from collections.abc import Sequence

from serve_app.config import EngineConfig
from serve_app.engine.protocol import Painter
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.fake import FakePainter

__all__ = ["FakePainter", "load_painter"]


def load_painter(entry: ModelEntry, config: EngineConfig, add_ons: Sequence[AddOn] = ()) -> Painter:
    """Load a model's weights and start its engine. Blocks, for minutes with large weights.

    add_ons: what requests may name as `loras`, `vae` and `embeddings`.

    Raises:
        errors.GenerationFailed: the weights do not paint.
        OSError: no such file, or it is no checkpoint.
        ValueError: an architecture that is not served.
    """
    if config.painter == "fake":
        return FakePainter(config.fake_step_s, entry.native_size_px, entry.kinds)
    # Here and not above: the painter needs torch, the fake does not.
    from serve_app.pipelines.loader import load_checkpoint  # noqa: PLC0415
    from serve_app.pipelines.painter import WeavePainter  # noqa: PLC0415

    return WeavePainter(entry, config, load_checkpoint(entry, config, add_ons))
