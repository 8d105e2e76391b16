"""The state that requests share: LoRAs, token merging, self-attention guidance of the modules.

A variant names such a state. The engine applies it, on its own thread, before it starts a request
that needs it or runs its forwards; the planner serves variants in turns, since switching is dear.
"""

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors
import tomesd
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.pipelines.families import Family
from serve_app.pipelines.guidance import Perturbation
from serve_app.types import GenerationSpec

__all__ = ["Variant", "Variants"]


@dataclass(frozen=True, slots=True)
class Variant:
    """LoRA ids with their strengths, in order of id, and what is patched."""

    loras: tuple[tuple[str, float], ...] = ()
    merges_tokens: bool = False
    perturbs: bool = False


class Variants:
    """Knows the LoRA files and what is active.

    Args:
        base: the loaded pipeline, whose modules are changed in place.
        family: of the pipeline; only UNets can merge tokens.
        loras: LoRA files by catalogue id.
        tomesd_ratio: share of the tokens that is merged.
        perturbation: of the denoiser's self-attention.
    """

    def __init__(
        self,
        base: DiffusionPipeline,
        family: Family,
        loras: Mapping[str, Path],
        tomesd_ratio: float,
        perturbation: Perturbation,
    ) -> None:
        self._base = base
        self._denoiser = getattr(base, family.denoiser)
        self._can_merge = family.denoiser == "unet"
        self._paths = loras
        self._ratio = tomesd_ratio
        self._perturbation = perturbation
        self._adapters = {name: f"lora_{number}" for number, name in enumerate(sorted(loras))}
        self._read: dict[str, dict[str, torch.Tensor]] = {}
        self._loaded: set[str] = set()

    def of(self, spec: GenerationSpec) -> Variant:
        """Name the variant that a request needs, and read its LoRA files. Off the engine thread.

        Raises:
            errors.InvalidRequest: a LoRA that is not in the catalogue, or self-attention guidance
                of a denoiser that has no layers for it.
            errors.GenerationFailed: its file cannot be read.
        """
        for use in spec.loras:
            if use.id not in self._paths:
                raise errors.InvalidRequest("lora_model", f"The LoRA {use.id[:96]} is not known")
            if use.id not in self._loaded and use.id not in self._read:
                try:
                    self._read[use.id] = load_file(self._paths[use.id])
                except (OSError, safetensors.SafetensorError) as exc:
                    raise errors.GenerationFailed(f"LoRA {use.id}: {exc}") from exc
        if spec.self_attention and not self._perturbation.is_possible:
            text = "The model has no layers that self-attention guidance acts on"
            raise errors.InvalidRequest("self_attention", text)
        strengths: dict[str, float] = {}
        for use in spec.loras:
            strengths[use.id] = strengths.get(use.id, 0.0) + use.strength
        return Variant(
            loras=tuple(sorted(strengths.items())),
            merges_tokens=spec.tomesd and self._can_merge,
            perturbs=spec.self_attention,
        )

    def activate(self, variant: Hashable) -> None:
        """Bring the modules into the state of a variant. Only on the engine thread.

        Raises:
            errors.GenerationFailed: a LoRA that does not fit the checkpoint.
        """
        assert isinstance(variant, Variant), "requests carry what `of` gave them"
        for name, _ in variant.loras:
            if name not in self._loaded:
                self._load(name)
        if variant.loras:
            names = [self._adapters[name] for name, _ in variant.loras]
            self._base.enable_lora()
            self._base.set_adapters(names, [strength for _, strength in variant.loras])
        elif self._loaded:
            self._base.disable_lora()
        self._merge(variant.merges_tokens)
        self._perturbation.apply(variant.perturbs)

    def _load(self, name: str) -> None:
        adapter = self._adapters[name]
        try:
            self._base.load_lora_weights(dict(self._read[name]), adapter_name=adapter)
        except Exception as exc:  # whatever diffusers and peft find wrong with the file
            with suppress(Exception):
                self._base.delete_adapters(adapter)
            raise errors.GenerationFailed(f"LoRA {name} does not fit: {exc}") from exc
        self._loaded.add(name)
        del self._read[name]
        for component in self._base.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)

    def _merge(self, is_wanted: bool) -> None:
        """Patch or unpatch the UNet. Never at random: a neighbour would change the picture."""
        if not self._can_merge:
            return
        if is_wanted:
            tomesd.apply_patch(self._denoiser, ratio=self._ratio, use_rand=False)
        else:
            tomesd.remove_patch(self._denoiser)
