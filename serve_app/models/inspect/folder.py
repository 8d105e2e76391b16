"""What a folder of weights is: by its configurations and the headers of its files."""

from collections.abc import Callable, Mapping
from pathlib import Path

from serve_app.config import CatalogueConfig
from serve_app.models.inspect.file import Fault, Unreadable, read_weights
from serve_app.models.inspect.inspection import (
    Family,
    FileType,
    Inspection,
    Part,
    Prediction,
)
from serve_app.models.inspect.layout import Families
from serve_app.models.inspect.metadata import tidy
from serve_app.models.inspect.parts import part_of
from serve_app.models.weights.files import Refused
from serve_app.models.weights.folder import (
    INDEX,
    choose_variant,
    components,
    file_variants,
    read_settings,
    weight_files,
)
from serve_app.models.weights.header import Tensor

__all__ = ["inspect_folder"]

InspectFile = Callable[[Path, CatalogueConfig], Inspection]
Settings = Mapping[str, object]

_MAX_FILES = 16  # of a folder that does not say what it is
_BY_PIPELINE: dict[str, Families] = {  # how class names begin, the longer ones first
    "StableDiffusionXL": (Family.SDXL,),
    "StableDiffusion3": (Family.SD3,),
    "StableDiffusion": (Family.SD1, Family.SD2),
    "Flux": (Family.FLUX,),
}
_BY_WIDTH = {768: Family.SD1, 1024: Family.SD2, 1280: Family.SDXL_REFINER, 2048: Family.SDXL}
_BY_CLASS = {  # of a component alone
    "AutoencoderKL": FileType.VAE,
    "UNet2DConditionModel": FileType.UNET,
    "SD3Transformer2DModel": FileType.TRANSFORMER,
    "FluxTransformer2DModel": FileType.TRANSFORMER,
    "ControlNetModel": FileType.CONTROLNET,
    "ControlNetUnionModel": FileType.CONTROLNET,
    "FluxControlNetModel": FileType.CONTROLNET,
    "SD3ControlNetModel": FileType.CONTROLNET,
    "CLIPTextModel": FileType.TEXT_ENCODER,
    "CLIPTextModelWithProjection": FileType.TEXT_ENCODER,
    "T5EncoderModel": FileType.TEXT_ENCODER,
}
_BY_SCALING: dict[str, Families] = {  # of latents, which only the settings of a VAE tell
    "0.18215": (Family.SD1, Family.SD2),
    "0.13025": (Family.SDXL,),
}
_VARIANTS = {9: "inpainting", 8: "pix2pix", 5: "depth"}


def inspect_folder(folder: Path, config: CatalogueConfig, inspect_file: InspectFile) -> Inspection:
    """Determine what a folder in diffusers' form is; of other folders, what their one file is.

    Raises:
        Unreadable: it is no such folder, or a file of it cannot be read.
    """
    try:
        if (folder / INDEX).is_file():
            return _pipeline(folder, config)
        return _component(folder, config, inspect_file)
    except PermissionError as exc:
        raise Unreadable(Fault.NO_PERMISSION, f"{folder.name} may not be read") from exc


def _pipeline(folder: Path, config: CatalogueConfig) -> Inspection:
    index = read_settings(folder / INDEX)
    denoiser = "transformer" if "transformer" in index else "unet"
    settings = read_settings(folder / denoiser / "config.json")
    scheduler = read_settings(folder / "scheduler" / "scheduler_config.json")
    variant = _variant(folder)
    found = {
        name: files
        for name in components(folder)
        if (files := weight_files(folder / name, variant))
    }
    families = _families_of(str(index.get("_class_name", "")), settings)
    channels = _channels(settings, families)
    return Inspection(
        type=FileType.CHECKPOINT,
        layout="diffusers folder",
        families=families,
        variant=_VARIANTS.get(channels or 0) if denoiser == "unet" else None,
        channels=channels,
        prediction=_prediction(scheduler, families),
        zero_snr=_flag(scheduler.get("rescale_betas_zero_snr")),
        parts=tuple(_part(name, files, config) for name, files in found.items()),
        file_variants=tuple(sorted(file_variants(folder))),
        name=tidy(folder.resolve().name) or None,
    )


def _component(folder: Path, config: CatalogueConfig, inspect_file: InspectFile) -> Inspection:
    """Look at a folder of one component, or one that holds a single file or an IP adapter."""
    settings = read_settings(folder / "config.json")
    class_name = _class_name(settings)
    type_ = _BY_CLASS.get(class_name)
    if type_ is not None and (files := weight_files(folder, _variant(folder))):
        whole = inspect_file(files[0], config)
        part = _part(type_.value, files, config)
        changes: dict[str, object] = {"type": type_, "parts": (part,)}
        if whole.type is not type_:  # one of several files may lack what tells
            changes |= {"layout": f"folder of a diffusers {class_name}", "first_keys": ()}
        if type_ is FileType.VAE and (own := _BY_SCALING.get(str(settings.get("scaling_factor")))):
            changes["families"] = own
        changes["file_variants"] = tuple(sorted(file_variants(folder)))
        return whole.model_copy(update=changes)
    files = sorted(folder.rglob("*.safetensors"))
    if len(files) > _MAX_FILES:
        raise _nothing(folder, len(files))
    inspected = [inspect_file(file, config) for file in files]
    adapters = [one for one in inspected if one.type is FileType.IP_ADAPTER]
    if len(adapters) == 1:
        return adapters[0]
    if len(inspected) == 1:
        return inspected[0]
    raise _nothing(folder, len(files))


def _nothing(folder: Path, num_files: int) -> Unreadable:
    if num_files:
        reason = f"{folder.name} holds {num_files} files, and no {INDEX} that says what they are"
        return Unreadable(Fault.NO_WEIGHTS, reason)
    pickles = next(
        (file for kind in ("*.bin", "*.ckpt", "*.pt*") for file in folder.rglob(kind)), None
    )
    if pickles is not None:
        reason = (
            f"{folder.name} holds pickles, which run code when they are loaded; "
            "`dreamserve models convert` makes safetensors of them"
        )
        return Unreadable(Fault.PICKLE, reason)
    return Unreadable(Fault.NO_WEIGHTS, f"{folder.name} holds no weights")


def _class_name(settings: Settings) -> str:
    """Return diffusers' name of the class, or transformers'."""
    architectures = settings.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else ""
    return str(settings.get("_class_name", named))


def _families_of(class_name: str, settings: Settings) -> Families:
    width = settings.get("cross_attention_dim")
    by_width = _BY_WIDTH.get(width) if isinstance(width, int) else None
    families = next(
        (own for start, own in _BY_PIPELINE.items() if class_name.startswith(start)), ()
    )
    is_refiner = Family.SDXL in families and by_width is Family.SDXL_REFINER
    return (
        (by_width,) if by_width is not None and (by_width in families or is_refiner) else families
    )


def _channels(settings: Settings, families: Families) -> int | None:
    channels = settings.get("in_channels")
    if not isinstance(channels, int):
        return None
    return channels // 4 if Family.FLUX in families else channels


def _prediction(scheduler: Settings, families: Families) -> Prediction | None:
    if families and set(families) <= {Family.SD3, Family.FLUX}:
        return Prediction.FLOW
    said = scheduler.get("prediction_type")
    return Prediction(said) if isinstance(said, str) and said in tuple(Prediction) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _variant(folder: Path) -> str | None:
    """Choose the variant; any where none is complete, which whoever loads it refuses."""
    try:
        return choose_variant(folder)
    except Refused:
        return next(iter(sorted(file_variants(folder))), None)


def _part(name: str, files: list[Path], config: CatalogueConfig) -> Part:
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_weights(file, config).tensors
    return part_of(name, tensors)
