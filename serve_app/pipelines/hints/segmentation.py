"""`SegmentationHints`: what is what in a picture, by colours, from a transformers model."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    BaseImageProcessor,
    PreTrainedModel,
)

from serve_app.pipelines.hints.ade20k import PALETTE
from serve_app.pipelines.hints.hint_model import HintModel, load

__all__ = ["SegmentationHints"]

_UNIVERSAL = ("mask2former", "maskformer", "eomt")
# Memory grows with classes x pixels, 150 MB at 512 x 512; ControlNets' annotator looks at as many.
_MAX_SIDE_PX = 512


class SegmentationHints(HintModel):
    """Paints each pixel in the colour of its class.

    Args:
        folder: of a model that was trained on ADE20K and its image processor, with safetensors.
        device: that it runs on.
    """

    setting = "segmentation"

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(device)
        self._folder = folder

    def _drawn(self, image: Image.Image) -> Image.Image:
        model, processor = self._loaded
        inputs = processor(images=image, return_tensors="pt").to(self.device)
        scale = min(1.0, _MAX_SIDE_PX / max(image.size))
        size = (max(1, round(image.height * scale)), max(1, round(image.width * scale)))
        told = processor.post_process_semantic_segmentation(model(**inputs), target_sizes=[size])
        classes = Image.fromarray(told[0].cpu().numpy().astype(np.uint8))
        large = classes.resize(image.size, Image.Resampling.NEAREST)
        return Image.fromarray(PALETTE[np.asarray(large)])

    @functools.cached_property
    def _loaded(self) -> tuple[PreTrainedModel, BaseImageProcessor]:
        config = AutoConfig.from_pretrained(self._folder, local_files_only=True)
        if config.num_labels != len(PALETTE):
            raise ValueError(f"{config.num_labels} classes, not the {len(PALETTE)} of ADE20K")
        is_universal = config.model_type in _UNIVERSAL
        auto = (
            AutoModelForUniversalSegmentation if is_universal else AutoModelForSemanticSegmentation
        )
        return load(self._folder, auto, self.device)
