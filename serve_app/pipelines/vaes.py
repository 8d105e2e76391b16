"""VAEs of one model: the checkpoint's own, and those that requests name."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.lane import Lane
from serve_app.pipelines.addons import Named
from serve_app.pipelines.encodes import EncodeCache
from serve_app.pipelines.families import by_name
from serve_app.pipelines.kept import Kept, Uses, num_bytes
from serve_app.pipelines.soundness import settle

__all__ = ["Vae", "Vaes"]


@dataclass(frozen=True, slots=True, eq=False)
class Vae:
    """A VAE with the lanes that its halves run in."""

    module: AutoencoderKL
    encoder: Lane
    decoder: Lane


class Vaes:
    """Loads a VAE when a request names it and it is not there. Safe to call from several threads.

    uses: VAEs of jobs at work, by key; others leave when `engine.vae_bytes` are taken.
    """

    def __init__(self, own: AutoencoderKL, config: EngineConfig, uses: Uses) -> None:
        self.own = _make(own, "", config)
        self._config = config
        self._lock = Lock()
        self._loaded: Kept[Vae] = Kept(config.vae_bytes, uses)

    def get(self, named: Named | None) -> Vae:
        """Give the VAE of a request; None: the checkpoint's own. Blocks while one is loaded.

        Raises:
            errors.GenerationFailed: it does not fit; `errors.OutOfMemory` where there is no room.
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
        try:
            vae = _read(named.entry.path, own).to(device=own.device, dtype=own.dtype)
            settle(named.entry.id, vae, own.device)
        except torch.OutOfMemoryError as exc:
            raise errors.OutOfMemory(str(exc)) from exc
        except Exception as exc:  # whatever diffusers and torch find wrong with the files
            raise errors.GenerationFailed(f"VAE {named.entry.id} does not fit: {exc}") from exc
        return vae


def _read(source: Path, own: AutoencoderKL) -> AutoencoderKL:
    """Read a folder, or a single file, which is taken to have the architecture of `own`."""
    if source.is_dir():
        vae = AutoencoderKL.from_pretrained(source, local_files_only=True)
    else:
        vae = AutoencoderKL.from_config(own.config)
        vae.load_state_dict(load_file(source))
    return vae


def _make(vae: AutoencoderKL, name: str, config: EngineConfig) -> Vae:
    """Give a VAE the lanes of its halves; `name` tells it from others in the metrics."""
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
