"""The settings of a single file that has none beside it, told by its header."""

from pathlib import Path

from serve_app.config import CatalogueConfig
from serve_app.models.bases.base import BASES, Base
from serve_app.models.bases.vocabulary import VocabularyMissing
from serve_app.models.entry import ModelEntry
from serve_app.models.inspect.inspect import BY_FLOW
from serve_app.models.inspect.inspection import Family, Inspection, Prediction
from serve_app.models.weights.files import Refused

__all__ = ["base_of", "settings_folder", "training_of"]

# By family and variant; None: whatever else is of the family.
_BASES: dict[tuple[Family, str | None], str] = {
    (Family.SD1, None): "sd1",
    (Family.SD1, "inpainting"): "sd1",
    (Family.SD2, None): "sd2",
    (Family.SD2, "inpainting"): "sd2",
    (Family.SDXL, None): "sdxl",
    (Family.SDXL, "inpainting"): "sdxl",
    (Family.SD3, "3 medium"): "sd3-medium",
    (Family.SD3, "3.5 medium"): "sd3.5-medium",
    (Family.SD3, "3.5 large"): "sd3.5-large",
    (Family.FLUX, "dev"): "flux-dev",
    (Family.FLUX, "schnell"): "flux-schnell",
}
_SERVED = (Prediction.EPSILON, Prediction.V)


def settings_folder(entry: ModelEntry, found: Inspection, config: CatalogueConfig) -> Path:
    """Return a folder of settings for a file, written from what is known of its architecture.

    Raises:
        Refused: it is no model, of an architecture that is not known, or does not tell all.
        OSError: the folder cannot be written.
    """
    try:
        assert config.cache_dir is not None, "AppConfig fills it in"
        return base_of(entry, found).write(config.cache_dir)
    except VocabularyMissing as exc:
        raise Refused(str(exc)) from exc


def base_of(entry: ModelEntry, found: Inspection) -> Base:
    """Return the settings of a single file that has none beside it.

    Raises:
        Refused: its architecture is not known, or neither file nor entry tells all.
    """
    name = _BASES.get((found.family, found.variant)) if found.family else None
    if name is None or not found.type.is_model:
        raise Refused(
            f"found {found.noun}, expected a model of a known architecture; for others name a "
            "diffusers folder with their settings as base_config"
        )
    if found.family is Family.FLUX and entry.text_encoders is None:
        raise Refused(
            "FLUX.1 reads prompts with T5, whose vocabulary no package has: name a folder with it "
            "as text_encoders or base"
        )
    is_told = entry.prediction_type is not None or found.prediction is not None
    if found.family is Family.SD2 and found.variant is None and not is_told:
        raise Refused(
            "the file does not tell what its model predicts: say prediction_type, epsilon "
            "(Stable Diffusion 2 base, 512 pixels) or v_prediction (768 pixels)"
        )
    return BASES[name].for_inpainting() if found.variant == "inpainting" else BASES[name]


def training_of(entry: ModelEntry, found: Inspection) -> dict[str, object]:
    """Return what a file tells of its training, for the fields that the entry leaves open.

    Raises:
        Refused: it was trained to predict what is not served.
    """
    told: dict[str, object] = {}
    if entry.zero_snr is None and found.zero_snr:
        told["zero_snr"] = True
    if entry.prediction_type is None and found.prediction and found.family not in BY_FLOW:
        if found.prediction not in _SERVED:
            raise Refused(f"the model predicts {found.prediction}, which is not served")
        told["prediction_type"] = found.prediction.value
    return told
