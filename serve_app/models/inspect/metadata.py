"""What the header of a safetensors file says of the weights: written by trainers, believed.

Sources: Stability AI's ModelSpec 1.0.1 (`modelspec.*`); `train_network.py` of sd-scripts (`ss_*`).
"""

from collections import Counter
from collections.abc import Mapping

import pydantic_core

from serve_app.models.inspect.inspection import Family, Prediction

__all__ = [
    "claimed_families",
    "claimed_name",
    "claimed_prediction",
    "claimed_zero_snr",
    "tidy",
    "triggers",
]

_FAMILY_KEYS = ("modelspec.architecture", "ss_base_model_version")
# How the values begin.
_BEGINNINGS = {
    "stable-diffusion-v1": Family.SD1,
    "sd_v1": Family.SD1,
    "sd_1": Family.SD1,
    "stable-diffusion-v2": Family.SD2,
    "sd_v2": Family.SD2,
    "sd_2": Family.SD2,
    "stable-diffusion-xl-v1-refiner": Family.SDXL_REFINER,
    "stable-diffusion-xl": Family.SDXL,
    "sdxl": Family.SDXL,
    "stable-diffusion-3": Family.SD3,
    "sd3": Family.SD3,
    "flux-1": Family.FLUX,
    "flux.1": Family.FLUX,
    "flux1": Family.FLUX,
}
_PREDICTIONS = {
    "epsilon": Prediction.EPSILON,
    "eps": Prediction.EPSILON,
    "v": Prediction.V,
    "v_prediction": Prediction.V,
    "x0": Prediction.SAMPLE,
    "sample": Prediction.SAMPLE,
}
_MAX_TRIGGERS = 10
_MAX_LETTERS = 128  # of a name or a trigger word


def claimed_families(metadata: Mapping[str, str]) -> tuple[Family, ...]:
    """Return the families that the header names, one for each key that names any."""
    said = (metadata.get(key, "").lower() for key in _FAMILY_KEYS)
    found = (
        next((family for start, family in _BEGINNINGS.items() if text.startswith(start)), None)
        for text in said
    )
    named = [family for family in found if family is not None]
    if not named and metadata.get("ss_v2", "").lower() == "true":
        named = [Family.SD2]
    return tuple(named)


def claimed_prediction(metadata: Mapping[str, str]) -> Prediction | None:
    """Return what the header says that the denoiser predicts."""
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        if (said := metadata.get(key, "").lower()) in _PREDICTIONS:
            return _PREDICTIONS[said]
    by_trainer = {"true": Prediction.V, "false": Prediction.EPSILON}
    return by_trainer.get(metadata.get("ss_v_parameterization", "").lower())


def claimed_zero_snr(metadata: Mapping[str, str]) -> bool | None:
    """Return whether the header says that the noise schedule ends without a signal."""
    said = metadata.get("ss_zero_terminal_snr", "").lower()
    return {"true": True, "false": False}.get(said)


def claimed_name(metadata: Mapping[str, str]) -> str | None:
    """Return what the maker calls the weights."""
    names = (metadata.get(key) for key in ("modelspec.title", "ss_output_name"))
    return next((tidy(name) for name in names if name and tidy(name)), None)


def triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the phrase that the maker names, or else the commonest tags of the captions."""
    if phrase := tidy(metadata.get("modelspec.trigger_phrase", "")):
        return (phrase,)
    try:
        said = pydantic_core.from_json(metadata.get("ss_tag_frequency", "{}"))
    except ValueError:  # also where it is nested without end
        return ()
    counts: Counter[str] = Counter()
    for tags in said.values() if isinstance(said, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and tidy(tag):
                counts[tidy(tag)] += count
    return tuple(tag for tag, _ in counts.most_common(_MAX_TRIGGERS))


def tidy(text: str) -> str:
    """Make a line of it that can be printed: what a stranger wrote goes to a terminal."""
    start = text[: 2 * _MAX_LETTERS]
    printable = "".join(letter if letter.isprintable() else " " for letter in start)
    return " ".join(printable.split())[:_MAX_LETTERS]
