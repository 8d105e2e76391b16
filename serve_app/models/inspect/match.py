"""Whether files are what an entry says they are, told before anything is loaded."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from serve_app.config import CatalogueConfig
from serve_app.models.entry import AddOn, AddOnType, Entry, ModelEntry
from serve_app.models.inspect.file import Fault, Unreadable
from serve_app.models.inspect.inspect import BY_FLOW, inspect
from serve_app.models.inspect.inspection import Family, FileType, Inspection
from serve_app.models.inspect.layout import Families
from serve_app.models.weights.files import Refused
from serve_app.models.weights.folder import choose_variant

__all__ = ["Mismatch", "check_found", "check_match", "families_of", "mismatches"]

# What each kind of entry may be, and what people call that.
_MODEL = (
    (FileType.CHECKPOINT, FileType.UNET, FileType.TRANSFORMER),
    "a checkpoint with its denoiser, VAE or text encoders",
)
_ADD_ONS: Mapping[AddOnType, tuple[tuple[FileType, ...], str]] = {
    "lora": (
        (FileType.LORA, FileType.LOCON, FileType.DORA, FileType.LOHA, FileType.LOKR),
        "a LoRA, LoCon, DoRA, LoHa or LoKr",
    ),
    "vae": ((FileType.VAE,), "a VAE"),
    "embedding": ((FileType.EMBEDDING,), "an embedding"),
    "ip_adapter": ((FileType.IP_ADAPTER,), "an IP adapter"),
    "controlnet": ((FileType.CONTROLNET,), "a ControlNet"),
    "upscaler": ((FileType.UPSCALER,), "an upscaler"),
}
_BY_CATEGORY: Mapping[str, Families] = {
    "stable_diffusion": (Family.SD1, Family.SD2),
    "stable_diffusion_xl": (Family.SDXL, Family.SDXL_REFINER),
    "stable_diffusion_3": (Family.SD3,),
    "flux": (Family.FLUX,),
}
_CONTROLLED = (Family.SD1, Family.SD2, Family.SDXL)  # that ControlNets are served for
_TEXT_PARTS = ("text_encoder", "clip_", "t5")
_ENCODERS: Mapping[Family | None, tuple[str, ...]] = {  # that a model cannot do without
    Family.SD1: ("clip_l",),
    Family.SD2: ("clip_h",),
    Family.SDXL: ("clip_l", "clip_g"),
    Family.SD3: ("clip_l", "clip_g"),
    Family.FLUX: ("clip_l", "t5xxl"),
}
_CHANNELS = {Family.SD3: (16,), Family.FLUX: (16,)}  # that pipelines here feed
_CHANNELS_OF_UNETS = (4, 9)


class Mismatch(Refused):
    """Files are something else than the entry says: `Mismatch(found, expected)`."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.found = found
        self.expected = expected


def check_match(
    entry: Entry, config: CatalogueConfig, models: Mapping[str, ModelEntry] | None = None
) -> None:
    """Look at the headers of an entry's files, and hold them against what it says.

    Args:
        entry: with paths of this machine; a hub's source is not looked at.
        models: known ones by id, with paths of this machine; for add-ons that name some.

    Raises:
        Mismatch: they are something else.
        Unreadable: nothing can be said of them.
    """
    if not isinstance(entry.source, Path):
        return
    try:
        found = inspect(entry.source, config)
    except Unreadable as exc:
        if exc.fault is Fault.PICKLE and config.allow_pickle:
            return  # the operator made it
        raise
    check_found(entry, found, config, models)


def check_found(
    entry: Entry,
    found: Inspection,
    config: CatalogueConfig,
    models: Mapping[str, ModelEntry] | None = None,
) -> None:
    """Hold what an inspection of an entry's files found against what the entry says.

    Raises:
        Mismatch: they are something else.
    """
    for mismatch in mismatches(entry, found, config, models or {}):
        raise mismatch


def mismatches(
    entry: Entry, found: Inspection, config: CatalogueConfig, models: Mapping[str, ModelEntry]
) -> Iterator[Mismatch]:
    """Name all in which files differ from their entry; see `check_match`."""
    types, wanted = _MODEL if isinstance(entry, ModelEntry) else _ADD_ONS[entry.type]
    if found.type not in types:
        yield Mismatch(found.noun, wanted)
    elif isinstance(entry, ModelEntry):
        yield from _of_model(entry, found)
        if entry.path.is_file() and entry.base is None:
            yield from _of_parts(entry, found)
        if isinstance(entry.base_config, Path) and entry.path.is_file():
            yield from _of_base(entry, found, inspect(entry.base_config, config))
    else:
        yield from _of_add_on(entry, found, config, models)


def _of_model(entry: ModelEntry, found: Inspection) -> Iterator[Mismatch]:
    families = _BY_CATEGORY[entry.category]
    if "category" in entry.model_fields_set and _are_apart(found.families, families):
        yield Mismatch(found.noun, f"one of {_nouns(families)}, as category says")
    channels = _CHANNELS.get(found.family, _CHANNELS_OF_UNETS) if found.family else None
    if channels and found.channels and found.channels not in channels:
        numbers = " or ".join(str(number) for number in channels)
        yield Mismatch(f"{found.noun} with {found.channels} channels", f"{numbers} channels")
    if entry.guidance_rescale and found.families and set(found.families) <= set(BY_FLOW):
        yield Mismatch(f"{found.noun} with guidance_rescale", "a model with a UNet")
    if entry.path.is_dir():
        choose_variant(entry.path, entry.variant)
    if found.quantization:
        yield Mismatch(f"numbers packed as {found.quantization}", "plain floats")


def _of_parts(entry: ModelEntry, found: Inspection) -> Iterator[Mismatch]:
    """A single file has all parts, but for those that its entry names."""
    if entry.vae is None and not found.has_part("vae"):
        yield Mismatch(f"{found.noun} without a VAE", "one with it, or vae or base in the entry")
    if entry.text_encoders is not None:
        return
    wanted = "one with them, or text_encoders or base in the entry"
    if not any(part.name.startswith(_TEXT_PARTS) for part in found.parts):
        yield Mismatch(f"{found.noun} without text encoders", wanted)
        return
    lacking = [name for name in _ENCODERS.get(found.family, ()) if not found.has_part(name)]
    if lacking:
        yield Mismatch(f"{found.noun} without the text encoder {' and '.join(lacking)}", wanted)


def _of_base(entry: ModelEntry, found: Inspection, base: Inspection) -> Iterator[Mismatch]:
    """A single file is loaded with the settings of its base, whatever they do to it."""
    if _are_apart(found.families, base.families):
        yield Mismatch(found.noun, f"one of {_nouns(base.families)}, as base_config is")
    for name, ours, theirs, said in (
        ("channels", found.channels, base.channels, None),
        ("prediction", found.prediction, base.prediction, entry.prediction_type),
        ("zero_snr", found.zero_snr, base.zero_snr, entry.zero_snr),
    ):
        if said is None and None not in (ours, theirs) and ours != theirs:
            yield Mismatch(f"{name} {ours}", f"{theirs}, as base_config says")


def _of_add_on(
    entry: AddOn, found: Inspection, config: CatalogueConfig, models: Mapping[str, ModelEntry]
) -> Iterator[Mismatch]:
    if found.type is FileType.IP_ADAPTER and found.variant == "face id":
        yield Mismatch(found.noun, "an IP adapter that takes pictures")
    if found.type is FileType.CONTROLNET:
        if found.variant == "union":
            yield Mismatch(found.noun, "a ControlNet for one kind of control picture")
        if _are_apart(found.families, _CONTROLLED):
            yield Mismatch(found.noun, f"one for {_nouns(_CONTROLLED)}")
    if found.type is FileType.UPSCALER and found.variant:
        yield Mismatch(found.noun, "an upscaler of the form of ESRGAN, or of its compact form")
    for model_id in entry.models:
        families = families_of(models[model_id], config) if model_id in models else ()
        if _are_apart(found.families, families):
            yield Mismatch(found.noun, f"one for {_nouns(families)}, as {model_id} is")


def families_of(entry: ModelEntry, config: CatalogueConfig) -> Families:
    """Return the families that a model may be of: by its files, else by the category it names."""
    if isinstance(entry.source, Path):
        try:
            return inspect(entry.source, config).families
        except Unreadable:
            pass  # it is on other machines, or has an error of its own
    return _BY_CATEGORY[entry.category] if "category" in entry.model_fields_set else ()


def _are_apart(found: Families, expected: Families) -> bool:
    """Whether both are known, and have nothing in common."""
    return bool(found) and bool(expected) and not set(found) & set(expected)


def _nouns(families: Families) -> str:
    return " or ".join(family.noun for family in families)
