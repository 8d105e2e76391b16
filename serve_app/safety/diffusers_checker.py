"""The check that Stable Diffusion ships with: CLIP embeddings against a list of concepts.

Source: diffusers, `StableDiffusionSafetyChecker`; its checkpoint holds the concept embeddings
and a threshold for each. torch is imported when a checker is made, so that whoever only names
this class stays light.

A model with missing or non-finite weights flags nothing, since a comparison with NaN is false:
such a checkpoint is refused when it is loaded.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from serve_app import errors
from serve_app.images.codec import to_image
from serve_app.imports import heavy_imports
from serve_app.safety.replace import replace_flagged
from serve_app.types import Pictures, SafetyAction

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

__all__ = ["DiffusersChecker"]


class DiffusersChecker:
    """`StableDiffusionSafetyChecker` in float32.

    Args:
        checkpoint: folder that holds safety_checker/ and feature_extractor/.
        device: cpu, cuda or cuda:N.

    Raises:
        errors.SafetyCheckFailed: the checkpoint cannot be loaded or is not sound.
    """

    def __init__(self, checkpoint: Path, device: str = "cpu") -> None:
        _import_all()
        from transformers import CLIPImageProcessorPil  # noqa: PLC0415  see the module docstring

        self._device = device
        try:
            self._model = _load_model(checkpoint / "safety_checker").to(device)
            # The Pillow flavour by name: the other one needs torchvision and rounds otherwise.
            self._processor = CLIPImageProcessorPil.from_pretrained(
                checkpoint / "feature_extractor", local_files_only=True
            )
        except Exception as exc:
            raise errors.SafetyCheckFailed(f"cannot load {checkpoint}: {exc}") from exc

    def check(self, pictures: Pictures, action: SafetyAction) -> Pictures:
        """As in the protocol."""
        try:
            images = [to_image(picture).convert("RGB") for picture in pictures.pictures]
            return replace_flagged(pictures, images, self._flags(images), action)
        except Exception as exc:
            raise errors.SafetyCheckFailed(f"the safety check broke: {exc}") from exc

    def _flags(self, images: list[Image.Image]) -> tuple[bool, ...]:
        import torch  # noqa: PLC0415  see the module docstring

        inputs = self._processor(images, return_tensors="pt").pixel_values.to(self._device)
        # The model blacks out what it flags; it gets blanks, since we replace by ourselves.
        blanks = [np.zeros(1, np.uint8) for _ in images]
        with torch.no_grad():
            _, flags = self._model(clip_input=inputs, images=blanks)
        return tuple(bool(flag) for flag in flags)


@functools.cache
def _import_all() -> None:
    with heavy_imports():
        from diffusers.pipelines.stable_diffusion import safety_checker  # noqa: F401, PLC0415
        from transformers import CLIPImageProcessorPil  # noqa: F401, PLC0415


def _load_model(folder: Path) -> "StableDiffusionSafetyChecker":
    import torch  # noqa: PLC0415  see the module docstring
    from diffusers.pipelines.stable_diffusion.safety_checker import (  # noqa: PLC0415
        StableDiffusionSafetyChecker,
    )

    model, report = StableDiffusionSafetyChecker.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report[problem]:
            raise ValueError(f"{problem}: {sorted(map(str, report[problem]))[:3]}")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"weight {name} is not finite")
    return model.eval()
