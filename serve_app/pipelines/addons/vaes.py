"""VAEs of one model: the checkpoint's own, and those that requests name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.lane import Lane
from serve_app.models.weights.folder import choose_variant
from serve_app.pipelines.addons.lineage import Lineage, read_header
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lru import Lru, Uses, num_bytes
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.encode_cache import EncodeCache
from serve_app.pipelines.families import by_name
from serve_app.pipelines.soundness import check_shapes, settle

__all__ = ["Vae", "Vaes", "check_latents"]

# What the pipelines make of latents, and what tells the VAEs of families of one shape apart.
_OF_LATENTS = (
    "latent_channels",
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
    "in_channels",
    "out_channels",
)


@dataclass(frozen=True, slots=True, eq=False)
class Vae:
    """A VAE with the lanes that its halves run in."""

    module: AutoencoderKL
    encoder: Lane
    decoder: Lane


class Vaes:
    """Loads a VAE when a request names it and it is not there. Safe to call from several threads.

    uses: VAEs of jobs at work, by key; others leave when `engine.vae_bytes` are taken.
    lineage: of the checkpoint.
    """

    def __init__(
        self, own: AutoencoderKL, config: EngineConfig, uses: Uses, lineage: Lineage
    ) -> None:
        self.own = _make(own, "", config)
        self._config = config
        self._lineage = lineage
        self._lock = Lock()
        self._loaded: Lru[Vae] = Lru(config.vae_bytes, uses)

    def get(self, named: Named | None) -> Vae:
        """Return the VAE of a request; None: the checkpoint's own. Blocks while one is loaded.

        Raises:
            errors.AddOnMisfit: it does not fit; `errors.OutOfMemory` where there is no room.
        """
        if named is None:
            return self.own
        with self._lock:
            loaded = self._loaded.get(named.key)
            if loaded is None:
                module = self._load(named)
                loaded = _make(module, named.entry.id, self._config)
                self._loaded.put(named.key, loaded, num_bytes(module))
            return loaded

    def _load(self, named: Named) -> AutoencoderKL:
        own = self.own.module
        with judging(named):
            vae = self._read(named.entry.path)
            check_latents(vae.config, own.config)
            vae = vae.to(device=own.device, dtype=own.dtype)
            settle("the VAE", vae, own.device)
        return vae

    def _read(self, source: Path) -> AutoencoderKL:
        """Read a folder, or a single file, which is taken to have the settings of the own one."""
        for file in [source] if source.is_file() else sorted(source.glob("*.safetensors")):
            self._lineage.check_vae(read_header(file))
        if source.is_dir():
            return _read_folder(source)
        vae = AutoencoderKL.from_config(self.own.module.config)
        tensors = load_file(source)
        check_shapes(tensors, vae.state_dict())
        vae.load_state_dict(tensors)
        return vae


def _read_folder(folder: Path) -> AutoencoderKL:
    name = AutoencoderKL.load_config(folder).get("_class_name", AutoencoderKL.__name__)
    if name != AutoencoderKL.__name__:
        raise Unfit(f"a VAE of the class {errors.echoed(name)}", AutoencoderKL.__name__)
    vae, info = AutoencoderKL.from_pretrained(
        folder,
        variant=choose_variant(folder),
        local_files_only=True,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys"):
        if info[kind]:
            raise Unfit(f"{kind.replace('_', ' ')}: {info[kind][0]}", "what its config.json says")
    return vae


def check_latents(found: Mapping[str, object], own: Mapping[str, object]) -> None:
    """Raise Unfit when its latents are not those that the denoiser paints."""
    for setting in _OF_LATENTS:
        if found[setting] != own[setting]:
            raise Unfit(f"{setting} {found[setting]}", str(own[setting]))
    if _cell_px(found) != _cell_px(own):
        raise Unfit(f"latent cells of {_cell_px(found)} pixels", str(_cell_px(own)))


def _cell_px(config: Mapping[str, object]) -> int:
    """Return the side of a latent cell: each level after the first halves the picture."""
    levels = config["block_out_channels"]
    assert isinstance(levels, Sequence), "one number of channels per level"
    return int(2 ** (len(levels) - 1))


def _make(vae: AutoencoderKL, name: str, config: EngineConfig) -> Vae:
    """Make the lanes of a VAE's halves; `name` tells it from others in the metrics."""
    if config.channels_last:
        vae.to(memory_format=torch.channels_last)
    encode, decode = (by_name(half, "sample") for half in (vae.encoder, vae.decoder))
    if config.encode_cache:
        encode = EncodeCache(encode, config.encode_cache)
    encoder, decoder = (
        Lane(f"vae {half} {name}".rstrip(), run, urgent=True, max_rows=config.vae_rows)
        for half, run in (("encoder", encode), ("decoder", decode))
    )
    return Vae(vae, encoder, decoder)
