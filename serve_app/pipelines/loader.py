"""Loads weights from disk, or a copy in CPU memory, into a stock pipeline.

Blocks; needs no network.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.weights.components import beginnings_of
from serve_app.models.weights.folder import LEFT_OUT, choose_variant
from serve_app.models.weights.footprint import loaded_files, weight_bytes
from serve_app.models.weights.prefetch import prefetch
from serve_app.pipelines.addons.controlnets import ControlNets
from serve_app.pipelines.addons.ip_adapters import IpAdapter, IpAdapters
from serve_app.pipelines.addons.lineage import lineage_of, read_header
from serve_app.pipelines.addons.lora_set import Adapter
from serve_app.pipelines.addons.lora_twin import take_pairs
from serve_app.pipelines.addons.loras import Loras
from serve_app.pipelines.addons.lru import Lru, Uses
from serve_app.pipelines.addons.textual_inversion import Embeddings
from serve_app.pipelines.addons.upscalers import Upscalers
from serve_app.pipelines.addons.vaes import Vaes
from serve_app.pipelines.addons.variants import Variants
from serve_app.pipelines.attention import remember_parameters
from serve_app.pipelines.checkpoint import Checkpoint, denoiser_lane, on_device
from serve_app.pipelines.compiled import Compiled
from serve_app.pipelines.construction import keep_in_threads
from serve_app.pipelines.duplicate import duplicate
from serve_app.pipelines.families import family_of
from serve_app.pipelines.guidance import Perturbation
from serve_app.pipelines.host import HostCopies
from serve_app.pipelines.parts import named_parts
from serve_app.pipelines.precision import device_of, with_dtype
from serve_app.pipelines.samplers.schedulers import Schedulers
from serve_app.pipelines.single_file import read_components
from serve_app.pipelines.soundness import check_complete, check_filled, settle
from serve_app.pipelines.tensor_reader import TensorReader, read_modules
from serve_app.pipelines.text.encoding import TextCache

__all__ = ["load_checkpoint"]


def load_checkpoint(
    entry: ModelEntry, config: EngineConfig, host: HostCopies | None = None, key: str = ""
) -> Checkpoint:
    """Load a model of the catalogue onto the device.

    Args:
        host: where copies are kept.
        key: of the weights there.

    Raises:
        OSError: no such file, or it is no checkpoint.
        ValueError: an architecture that is not served, or weights that are not sound.
    """
    keep_in_threads()
    remember_parameters()
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # warnings quote prompts, which must not reach a log
    device = device_of(config.device)
    entry = with_dtype(entry, device)
    base = _on_device(entry, device, host, key, channels_last=config.channels_last)
    family = family_of(base)
    if family.upcasts_vae and base.dtype is torch.float16 and base.vae.config.force_upcast:
        base.vae.to(torch.float32)  # its activations overflow in float16
    denoiser = getattr(base, family.denoiser)
    if config.channels_last and family.denoiser == "unet":
        denoiser.to(memory_format=torch.channels_last)
    compiled = Compiled(denoiser, family, config, take_pairs)
    perturbation = Perturbation(denoiser)
    uses = Uses()
    lineage = lineage_of(base)
    kept: Lru[Adapter] = Lru(config.lora_bytes, uses)
    host_loras: Lru[Adapter] = Lru(config.lora_host_bytes, Uses())
    loras = Loras(base, family, lineage, kept, host_loras, config)
    adapters: Lru[IpAdapter] = Lru(config.ip_adapter_bytes, uses)
    ip_adapters = IpAdapters(denoiser, adapters)
    return Checkpoint(
        base=base,
        family=family,
        pipelines={kind: on_device(cls, device) for kind, cls in family.pipelines.items()},
        controlled={kind: on_device(cls, device) for kind, cls in family.controlled.items()},
        denoiser=denoiser_lane(
            base,
            family,
            compiled,
            lambda run: ip_adapters.reading(perturbation.reading(run)),
            loras,
        ),
        compiled=compiled,
        schedulers=Schedulers(_trained(base.scheduler, entry)),
        vaes=Vaes(base.vae, config, uses, lineage),
        variants=Variants(base, family, config.tomesd_ratio, perturbation, ip_adapters, compiled),
        loras=loras,
        uses=uses,
        embeddings=Embeddings(base, family, lineage),
        controlnets=ControlNets(base, config, uses, lineage),
        upscalers=Upscalers(device, config, uses),
        texts=TextCache(config.text_cache),
        native_px=entry.native_size_px,
        multiple_px=entry.size_multiple_px,
        guidance_rescale=entry.guidance_rescale,
        config=config,
    )


def _trained(scheduler: SchedulerMixin, entry: ModelEntry) -> SchedulerMixin:
    """Correct what files say of the training by the entry; a copy in CPU memory stays as it is."""
    said = {
        "prediction_type": entry.prediction_type,
        "rescale_betas_zero_snr": entry.zero_snr,
        "timestep_spacing": entry.timestep_spacing or ("trailing" if entry.zero_snr else None),
    }
    changes = {name: value for name, value in said.items() if value is not None}
    made = type(scheduler).from_config(scheduler.config, **changes)
    made.register_to_config(**changes)  # the class may not know them all; the samplers do
    return made


def _on_device(
    entry: ModelEntry,
    device: torch.device,
    host: HostCopies | None,
    key: str,
    *,
    channels_last: bool,
) -> DiffusionPipeline:
    """Duplicate the copy in CPU memory, made now if there is room, or else read the files."""

    if host is None or not host.fits(weight_bytes(entry)):
        return _read(entry, device, channels_last=channels_last)
    cpu = torch.device("cpu")
    kept = host.get(key, lambda: _read(entry, cpu, channels_last=channels_last))
    return duplicate(kept, _modules(kept).values(), device)


def _modules(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    parts = pipeline.components.items()
    return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}


def _read(entry: ModelEntry, device: torch.device, *, channels_last: bool) -> DiffusionPipeline:
    """Load the pipeline class that the folder, or the settings of a single file, names.

    Its weights are sound, and in memory of their own on the device.
    """
    prefetch(loaded_files(entry))
    reader = TensorReader(copies=device.type == "cpu", channels_last=channels_last)
    folder = _settings_of(entry)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    cls = getattr(diffusers, index["_class_name"])
    left_out = {
        name: None for name, value in index.items() if name in LEFT_OUT or value == [None, None]
    }
    dtype = getattr(torch, entry.dtype)
    named = named_parts(entry, folder, dtype)
    options = {"dtype": dtype, "local_files_only": True, **left_out, **named}
    wanted = {
        name: value
        for name, value in index.items()
        if name not in options and isinstance(value, list)
    }
    if entry.path.is_dir():
        variant = choose_variant(folder, entry.variant)
        own: Mapping[str, object] = read_modules(folder, wanted, variant, dtype, reader)
        pipeline = cls.from_pretrained(folder, variant=variant, **options, **own)
        check_complete(pipeline, folder, named, variant)
    else:
        wanted = {name: value for name, value in wanted.items() if beginnings_of(name, value[1])}
        own = read_components(entry, folder, wanted, dtype, reader)
        pipeline = cls.from_pretrained(folder, **options, **own)
        for name, module in _modules(pipeline).items():
            check_filled(name, module)
    for name, module in _modules(pipeline.to(device)).items():
        module.eval().requires_grad_(False)
        if not reader.copies or name not in own:
            settle(name, module, device, channels_last=channels_last)
    return _with_fitting_vae(pipeline, entry)


def _with_fitting_vae(pipeline: DiffusionPipeline, entry: ModelEntry) -> DiffusionPipeline:
    """Raise Unfit when the file of its VAE says that it is made for another kind of model."""
    if isinstance(entry.vae, Path) and entry.vae.is_file():
        lineage_of(pipeline).check_vae(read_header(entry.vae))
    return pipeline


def _settings_of(entry: ModelEntry) -> Path:
    folder = entry.path if entry.path.is_dir() else entry.base or entry.base_config
    if not isinstance(folder, Path):
        raise ValueError(f"{entry.id}: a single file needs base_config")
    return folder
