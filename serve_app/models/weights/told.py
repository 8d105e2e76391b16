"""`with_told`: what the files of a model tell, for the fields that its entry leaves open."""

from pathlib import Path
from typing import Any

from serve_app.config import CatalogueConfig
from serve_app.models.bases.base import BASES
from serve_app.models.entry import E, ModelEntry, anchored
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.inspection import Family, Inspection, Prediction
from serve_app.models.weights.files import Refused

__all__ = ["family_values", "with_told"]

_BASES = {
    Family.SD1: "sd1",
    Family.SD2: "sd2",
    Family.SDXL: "sdxl",
    Family.SD3: "sd3-medium",
    Family.FLUX: "flux-dev",
}
_SMALL_PX = 512  # what Stable Diffusion 2 paints that predicts noise


def family_values(found: Inspection) -> dict[str, Any]:
    """Return category and native size of a model, as an entry has them; none if not served."""
    bases = {BASES[_BASES[family]].category for family in found.families if family in _BASES}
    if len(bases) != 1:
        return {}
    values: dict[str, Any] = {"category": bases.pop()}
    if found.family is not None:
        base = BASES[_BASES[found.family]]
        is_small = found.family is Family.SD2 and found.prediction is not Prediction.V
        values["native_size_px"] = _SMALL_PX if is_small else base.native_size_px
    return values


def with_told(entry: E, config: CatalogueConfig, root_dir: Path) -> E:
    """Fill in category and native size by the files of a model, where they are on this machine.

    What else has a default by the category then follows it. Other entries stay as they are.
    """
    is_open = not {"category", "native_size_px"} <= entry.model_fields_set
    if not isinstance(entry, ModelEntry) or not is_open or entry.has_revisions:
        return entry
    try:
        told = family_values(inspect(anchored(entry, root_dir).path, config))
    except (Refused, OSError):
        return entry  # whoever loads it says why
    said = entry.model_dump(exclude_unset=True)
    return type(entry).model_validate(told | said)
