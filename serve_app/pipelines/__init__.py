"""From a catalogue entry to a `Painter`: checkpoints, kinds, samplers, prompts, crops, pictures.

Knows no loop (`engine/`) and nothing of the service. Importing the package does not import torch.
"""

from serve_app.pipelines.fake import FakePainter

__all__ = ["FakePainter"]
