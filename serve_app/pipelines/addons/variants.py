"""The state that requests share: IP adapter, token merging, self-attention guidance.

A variant names such a state. The engine applies it, on its own thread, before it starts a request
that needs it or runs its forwards; the planner serves variants in turns, since switching is dear.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import tomesd
from diffusers import DiffusionPipeline, UNet2DConditionModel

from serve_app import errors
from serve_app.pipelines.addons.ip_adapters import IpAdapter, IpAdapters
from serve_app.pipelines.addons.lookup import NamedAddOns
from serve_app.pipelines.compiled import Compiled
from serve_app.pipelines.families import PipelineFamily
from serve_app.pipelines.guidance import Perturbation
from serve_app.types import GenerationSpec

__all__ = ["Variant", "Variants"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What is patched in the denoiser."""

    merges_tokens: bool = False
    perturbs: bool = False
    ip_adapter: IpAdapter | None = None


class Variants:
    """Names what requests need, and brings the modules there.

    can_merge: whether token merging acts on the denoiser.

    Args:
        base: the loaded pipeline, whose modules are changed in place.
        family: of the pipeline.
        tomesd_ratio: share of the tokens that is merged.
        perturbation: of the denoiser's self-attention.
        ip_adapters: of the denoiser.
        compiled: of the denoiser; its graphs heed none of these.
    """

    def __init__(
        self,
        base: DiffusionPipeline,
        family: PipelineFamily,
        tomesd_ratio: float,
        perturbation: Perturbation,
        ip_adapters: IpAdapters,
        compiled: Compiled,
    ) -> None:
        self._denoiser = getattr(base, family.denoiser)
        self.can_merge = (
            family.denoiser == "unet" and tomesd_ratio > 0 and _sees_all(self._denoiser)
        )
        self._ratio = tomesd_ratio
        self._perturbation = perturbation
        self._ip_adapters = ip_adapters
        self._compiled = compiled

    def of(self, spec: GenerationSpec, named: NamedAddOns) -> Variant:
        """Name the variant that a request needs, and read its files. Off the engine thread.

        Raises:
            errors.InvalidRequest: the denoiser has no layers for what it asks.
            errors.AddOnMisfit: the IP adapter does not fit.
            errors.OutOfMemory: there is no room for one.
        """
        if spec.self_attention and not self._perturbation.is_possible:
            text = "The model has no layers that self-attention guidance acts on"
            raise errors.InvalidRequest("self_attention", text)
        return Variant(
            merges_tokens=spec.tomesd and self.can_merge,
            perturbs=spec.self_attention,
            ip_adapter=self._ip_adapters.get(named.ip_adapter),
        )

    def activate(self, variant: Hashable) -> None:
        """Bring the modules into the state of a variant. Only on the engine thread."""
        assert isinstance(variant, Variant), "requests carry what `of` gave them"
        self._compiled.is_bypassed = variant != Variant()
        self._merge(variant.merges_tokens)
        self._perturbation.apply(variant.perturbs)
        self._ip_adapters.apply(variant.ip_adapter)

    def _merge(self, is_wanted: bool) -> None:
        """Patch or unpatch the UNet. Never at random: a neighbour would change the picture."""
        if not self.can_merge:
            return
        if is_wanted:
            tomesd.apply_patch(self._denoiser, ratio=self._ratio, use_rand=False)
        else:
            tomesd.remove_patch(self._denoiser)


def _sees_all(denoiser: UNet2DConditionModel) -> bool:
    """Whether a UNet has attention at full resolution, the only one that tomesd merges tokens of.

    XL has none. Source: tomesd 0.1, `max_downsample`.
    """
    assert isinstance(denoiser, UNet2DConditionModel), "families with a UNet have this one"
    ends = (denoiser.down_blocks[0], denoiser.up_blocks[-1])
    return any(getattr(block, "attentions", None) for block in ends)
