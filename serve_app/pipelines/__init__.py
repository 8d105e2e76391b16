"""From a catalogue entry to a `Painter`: checkpoints, kinds, samplers, prompts, crops, pictures.

Knows no loop (`engine/`) and nothing of the service. Importing the package does not import torch.
"""

import os

# Large tensors in CPU memory lie on huge pages, else most of a load's time goes into page faults.
# torch reads this once, at its first tensor, so it is set before torch is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from serve_app.pipelines.fake import FakePainter

__all__ = ["FakePainter"]
