"""`Loras`: LoRAs and DoRAs of requests, in the layers of a pipeline's denoiser and text encoders.

A file is judged when it is read, against the layers as they were made, so that nothing that does
not fit ever gets into them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from threading import Lock

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from serve_app import errors
from serve_app.pipelines.addons.lineage import Lineage, read_header
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lora_file import Tensors, read_pairs
from serve_app.pipelines.addons.lora_layers import LoraLayers, is_dora
from serve_app.pipelines.addons.lru import Lru
from serve_app.pipelines.addons.misfit import Unfit, judging

__all__ = ["Adapter", "Loras"]

_ENCODERS = ("text_encoder", "text_encoder_2")
_CLIP = (CLIPTextModel, CLIPTextModelWithProjection)

Fitted = dict[str, Tensors]  # by component, tensors in peft's names


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA that was read. name: given once, so that no variant means another one."""

    name: str
    is_dora: bool


class Loras:
    """`get` is safe to call from several threads; `apply` is for the engine thread.

    Args:
        base: the loaded pipeline, whose modules are changed in place.
        denoiser: its name among the components.
        lineage: of the pipeline.
        kept: adapters by key.
    """

    def __init__(
        self, base: DiffusionPipeline, denoiser: str, lineage: Lineage, kept: Lru[Adapter]
    ) -> None:
        self._base = base
        parts = {denoiser: getattr(base, denoiser)}
        parts |= {name: getattr(base, name, None) for name in _ENCODERS}
        self._parts = {
            name: LoraLayers(name, part)
            for name, part in parts.items()
            if name == denoiser or isinstance(part, _CLIP)
        }
        self._lineage = lineage
        self._lock = Lock()
        self._kept = kept
        self._numbers = count()
        self._waiting: dict[str, tuple[Named, Fitted]] = {}  # by adapter, until it is attached
        self._attached: set[str] = set()
        self._leaving: list[str] = []

    def get(self, named: Named) -> Adapter:
        """Return the adapter of a file, reading it if it is not loaded. Blocks.

        Raises:
            errors.AddOnMisfit: it does not fit the model.
            errors.OutOfMemory: there is no room for it.
        """
        with self._lock:
            adapter = self._kept.get(named.key)
            if adapter is None:
                with judging(named):
                    fitted = self._read(named)
                tensors = [pair for own in fitted.values() for pair in own.items()]
                name = f"lora_{next(self._numbers)}"
                adapter = Adapter(name, is_dora(tensor_name for tensor_name, _ in tensors))
                self._waiting[name] = (named, fitted)
                size = sum(tensor.nbytes for _, tensor in tensors)
                gone = self._kept.put(named.key, adapter, size)
                self._leaving.extend(left.name for left in gone)
            return adapter

    def apply(self, uses: Sequence[tuple[Adapter, float]]) -> None:
        """Activate exactly these adapters in the layers, each with its strength, in this order.

        Raises:
            errors.GenerationFailed: an adapter has left.
            errors.AddOnMisfit: a library refuses one that was found to fit.
            errors.OutOfMemory: there is no room for it.
        """
        while self._leaving:
            self._detach(self._leaving.pop())
        for adapter, _ in uses:
            if adapter.name not in self._attached:
                self._attach(adapter.name)
        for part in self._parts.values():
            part.activate([(adapter.name, strength) for adapter, strength in uses])

    def _read(self, named: Named) -> Fitted:
        header = read_header(named.entry.path)
        self._lineage.check(header)
        pairs = read_pairs(load_file(named.entry.path), header, self._convert)
        if strange := sorted(pairs.keys() - self._parts.keys()):
            raise Unfit(f"layers of a {strange[0]}", f"layers of {' or '.join(self._parts)}")
        return {name: self._parts[name].fitted(own) for name, own in pairs.items()}

    def _convert(self, tensors: Tensors) -> Mapping[str, torch.Tensor]:
        """Map the names of layers by diffusers, as it does for this kind of model."""
        if "text_encoder_2" in self._parts and any(name.startswith("lora_te_") for name in tensors):
            raise Unfit("layers of a model's only text encoder", "layers of one of two")
        options = {"unet_config": self._base.unet.config} if "unet" in self._parts else {}
        converted = self._base.lora_state_dict(dict(tensors), **options)
        named: Tensors = converted[0] if isinstance(converted, tuple) else converted
        return named

    def _attach(self, adapter: str) -> None:
        if adapter not in self._waiting:
            raise errors.GenerationFailed("its job was cancelled, and the LoRA has left since")
        named, fitted = self._waiting[adapter]
        try:
            with judging(named):
                for name, tensors in fitted.items():
                    self._parts[name].attach(adapter, tensors)
        except Exception:
            self._remove(adapter)
            raise
        del self._waiting[adapter]
        self._attached.add(adapter)

    def _detach(self, adapter: str) -> None:
        if adapter in self._attached:
            self._remove(adapter)
            self._attached.discard(adapter)
        self._waiting.pop(adapter, None)

    def _remove(self, adapter: str) -> None:
        for part in self._parts.values():
            part.remove(adapter)
