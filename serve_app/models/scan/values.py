"""`values_of`: an entry of the catalogue for what an inspection found."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from serve_app.models.entry import AddOnType
from serve_app.models.inspect.inspection import Family, FileType, Inspection
from serve_app.models.scan.naming import title_of
from serve_app.models.weights.files import Refused
from serve_app.models.weights.told import family_values
from serve_app.types import ControlType, Frozen, Kind

__all__ = ["ScanDefaults", "values_of"]


class ScanDefaults(Frozen):
    """What no file tells of a model. dtype: None leaves it to the category."""

    placement: Literal["own", "pool"] = "own"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] | None = None


_ADD_ONS: Mapping[FileType, AddOnType] = {
    FileType.LORA: "lora",
    FileType.LOCON: "lora",
    FileType.DORA: "lora",
    FileType.LOHA: "lora",
    FileType.LOKR: "lora",
    FileType.VAE: "vae",
    FileType.EMBEDDING: "embedding",
    FileType.IP_ADAPTER: "ip_adapter",
    FileType.CONTROLNET: "controlnet",
    FileType.UPSCALER: "upscaler",
}
_ABBREVIATED = {"seg": "segmentation", "pose": "openpose", "sketch": "scribble"}


def values_of(
    entry_id: str,
    source: Path,
    found: Inspection,
    *,
    defaults: ScanDefaults,
    models: Mapping[str, Sequence[Family]],
) -> dict[str, Any]:
    """Return the values of an entry, as a file of the catalogue has them.

    Args:
        defaults: of a model.
        models: families of the models that are served or found, by id; add-ons get those they fit.

    Raises:
        Refused: nothing in a catalogue is of this type, or no model is of its family.
    """
    title = title_of(source)
    name = title if source.is_dir() else found.name or title
    common = {"id": entry_id, "source": str(source), "name": name}
    if found.type is FileType.CHECKPOINT:
        return common | _of_model(found, defaults)
    if found.type is FileType.IP_ADAPTER and source.is_file():
        raise Refused("an IP adapter is a folder with its image encoder; write its entry by hand")
    if found.type is FileType.VAE and not family_values(found):
        raise Refused("it does not tell whose latents it reads; write its entry by hand")
    kind = _ADD_ONS.get(found.type)
    if kind is None:
        raise Refused(f"{found.noun} is not served")
    if kind == "upscaler":
        return common | {"type": kind}
    fitting = sorted(name for name, own in models.items() if set(own) & set(found.families))
    if not fitting:
        raise Refused("no model of its family is in the catalogue or the folder")
    described: dict[str, object] = {"type": kind, "models": fitting}
    if found.trigger_words:
        described["description"] = f"trigger words: {', '.join(found.trigger_words)}"
    if kind == "embedding":
        described["trigger"] = title  # as other programs take it
    if kind == "controlnet":
        described["control"] = _control_of(title)
    return common | described


def _control_of(name: str) -> list[str]:
    """Read what a ControlNet wants to see from its name, as control_v11p_sd15_canny says it."""
    words = re.split("[^a-z0-9]+", name.lower())
    types = {*ControlType} - {ControlType.POSE}  # which is said with its kind
    found = {one.value for one in types for word in words if word.startswith(one)}
    found |= {_ABBREVIATED[word] for word in words if word in _ABBREVIATED}
    return sorted(found) if len(found) == 1 else []


def _of_model(found: Inspection, defaults: ScanDefaults) -> dict[str, Any]:
    told = family_values(found)
    if not told:
        raise Refused(f"{found.noun} is not served")
    said = defaults.model_dump(exclude_none=True)
    return {**told, "kinds": [kind.value for kind in Kind], **said}
