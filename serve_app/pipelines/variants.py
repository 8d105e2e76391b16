"""The state that requests share: LoRAs, IP adapter, token merging, self-attention guidance.

A variant names such a state. The engine applies it, on its own thread, before it starts a request
that needs it or runs its forwards; the planner serves variants in turns, since switching is dear.
"""

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from threading import Lock

import safetensors
import tomesd
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.pipelines.addons import Named, NamedAll
from serve_app.pipelines.families import Family
from serve_app.pipelines.guidance import Perturbation
from serve_app.pipelines.ipadapters import IpAdapter, IpAdapters
from serve_app.pipelines.kept import Kept
from serve_app.types import GenerationSpec

__all__ = ["Variant", "Variants"]


@dataclass(frozen=True, slots=True)
class Variant:
    """LoRA adapters with their strengths, in order of catalogue id, and what is patched."""

    loras: tuple[tuple[str, float], ...] = ()
    merges_tokens: bool = False
    perturbs: bool = False
    ip_adapter: IpAdapter | None = None


class Variants:
    """Knows the LoRA files and what is active.

    can_merge: whether token merging acts on the denoiser.

    Args:
        base: the loaded pipeline, whose modules are changed in place.
        family: of the pipeline.
        tomesd_ratio: share of the tokens that is merged.
        perturbation: of the denoiser's self-attention.
        ip_adapters: of the denoiser.
        kept: LoRAs by key.
    """

    def __init__(
        self,
        base: DiffusionPipeline,
        family: Family,
        tomesd_ratio: float,
        perturbation: Perturbation,
        ip_adapters: IpAdapters,
        kept: Kept[str],
    ) -> None:
        self._base = base
        self._denoiser = getattr(base, family.denoiser)
        self.can_merge = (
            family.denoiser == "unet" and tomesd_ratio > 0 and _sees_all(self._denoiser)
        )
        self._ratio = tomesd_ratio
        self._perturbation = perturbation
        self._ip_adapters = ip_adapters
        self._lock = Lock()
        self._adapters = kept
        self._numbers = count()  # a name is used once, so that no variant means another LoRA
        self._leaving: list[str] = []
        self._read: dict[str, dict[str, torch.Tensor]] = {}  # by adapter, until it is loaded
        self._loaded: set[str] = set()
        self._bad: dict[str, str] = {}  # why not, by adapter

    def of(self, spec: GenerationSpec, named: NamedAll) -> Variant:
        """Name the variant that a request needs, and read its files. Off the engine thread.

        Raises:
            errors.InvalidRequest: the denoiser has no layers for what it asks.
            errors.GenerationFailed: a file cannot be read, or an IP adapter does not fit;
                `errors.OutOfMemory` where there is no room for it.
        """
        if spec.self_attention and not self._perturbation.is_possible:
            text = "The model has no layers that self-attention guidance acts on"
            raise errors.InvalidRequest("self_attention", text)
        strengths: dict[str, float] = {}
        for use in spec.loras:
            strengths[use.id] = strengths.get(use.id, 0.0) + use.strength
        return Variant(
            loras=tuple(
                (self._adapter(named.loras[name]), strengths[name]) for name in sorted(strengths)
            ),
            merges_tokens=spec.tomesd and self.can_merge,
            perturbs=spec.self_attention,
            ip_adapter=self._ip_adapters.get(named.ip_adapter),
        )

    def activate(self, variant: Hashable) -> None:
        """Bring the modules into the state of a variant. Only on the engine thread.

        Raises:
            errors.GenerationFailed: a LoRA that does not fit the checkpoint.
        """
        assert isinstance(variant, Variant), "requests carry what `of` gave them"
        while self._leaving:
            self._unload(self._leaving.pop())
        for adapter, _ in variant.loras:
            if adapter not in self._loaded:
                self._load(adapter)
        if variant.loras:
            names = [adapter for adapter, _ in variant.loras]
            self._base.enable_lora()
            self._base.set_adapters(names, [strength for _, strength in variant.loras])
        elif self._loaded:
            self._base.disable_lora()
        self._merge(variant.merges_tokens)
        self._perturbation.apply(variant.perturbs)
        self._ip_adapters.apply(variant.ip_adapter)

    def _adapter(self, named: Named) -> str:
        with self._lock:
            adapter = self._adapters.get(named.key)
            if adapter is None:
                try:
                    state = load_file(named.entry.path)
                except (OSError, safetensors.SafetensorError) as exc:
                    raise errors.GenerationFailed(f"LoRA {named.entry.id}: {exc}") from exc
                adapter = f"lora_{next(self._numbers)}"
                self._read[adapter] = state
                size = sum(tensor.nbytes for tensor in state.values())
                self._leaving.extend(self._adapters.put(named.key, adapter, size))
            return adapter

    def _load(self, adapter: str) -> None:
        if adapter in self._bad:
            raise errors.GenerationFailed(self._bad[adapter])
        if adapter not in self._read:
            raise errors.GenerationFailed("its job was cancelled, and the LoRA has left since")
        try:
            self._base.load_lora_weights(self._read.pop(adapter), adapter_name=adapter)
        except Exception as exc:  # whatever diffusers and peft find wrong with the file
            with suppress(Exception):
                self._base.delete_adapters(adapter)
            self._bad[adapter] = f"The LoRA does not fit: {exc}"
            raise errors.GenerationFailed(self._bad[adapter]) from exc
        self._loaded.add(adapter)
        for component in self._base.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)

    def _unload(self, adapter: str) -> None:
        if adapter in self._loaded:
            self._base.delete_adapters(adapter)
            self._loaded.discard(adapter)
        self._read.pop(adapter, None)
        self._bad.pop(adapter, None)

    def _merge(self, is_wanted: bool) -> None:
        """Patch or unpatch the UNet. Never at random: a neighbour would change the picture."""
        if not self.can_merge:
            return
        if is_wanted:
            tomesd.apply_patch(self._denoiser, ratio=self._ratio, use_rand=False)
        else:
            tomesd.remove_patch(self._denoiser)


def _sees_all(denoiser: torch.nn.Module) -> bool:
    """Whether a UNet has attention at full resolution, the only one that tomesd merges tokens of.

    XL has none. Source: tomesd 0.1, `max_downsample`.
    """
    ends = (denoiser.down_blocks[0], denoiser.up_blocks[-1])
    return any(getattr(block, "attentions", None) for block in ends)
