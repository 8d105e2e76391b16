"""`LoraLayers`: the layers of one component that LoRAs may change, and those that are in them.

peft does the arithmetic: it adds strength * up @ down to the weights of a layer; a DoRA also gives
the rows of that sum the lengths that its magnitudes say.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from peft import LoraConfig
from peft.functional import (
    delete_adapter,
    inject_adapter_in_model,
    set_adapter,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from torch import nn

from serve_app.pipelines.addons.lora_file import Pair, Tensors
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import check_tensor

__all__ = ["LoraLayers", "is_dora"]

_DOWN, _UP, _MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"


class LoraLayers:
    """`fitted` is safe to call from several threads; all else is for the engine thread.

    Args:
        name: of the component, for messages.
        module: the component as it was loaded, without any LoRA.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self._name = name
        self._module = module
        self._shapes = {
            layer: tuple(own.weight.shape)
            for layer, own in module.named_modules()
            if isinstance(own, nn.Linear) or (isinstance(own, nn.Conv2d) and own.groups == 1)
        }
        # Other threads may not walk through a module whose layers are being wrapped.
        weight = next(module.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._is_wrapped = False

    def fitted(self, pairs: Mapping[str, Pair]) -> Tensors:
        """Hold pairs against the layers; gives tensors in peft's names, on the module's device.

        Raises:
            Unfit: they are for layers of other names or shapes, or too large for its numbers.
        """
        tensors: Tensors = {}
        for written, own in pairs.items():
            layer = self._known(written)
            pair = own.for_weights(self._shapes[layer])
            made = (pair.up.shape[0], *pair.down.shape[1:])
            if made != self._shapes[layer]:
                where = f"{self._name}.{layer}"
                raise Unfit(f"matrices for weights of {made} at {where}", f"{self._shapes[layer]}")
            tensors[f"{layer}.{_DOWN}"] = pair.down
            tensors[f"{layer}.{_UP}"] = pair.up
            if pair.magnitude is not None:
                tensors[f"{layer}.{_MAGNITUDE}"] = self._lengths(layer, pair.magnitude)
        return {name: self._settled(name, tensor) for name, tensor in tensors.items()}

    def attach(self, adapter: str, tensors: Tensors) -> None:
        """Put an adapter into its layers, which heed it once it is activated."""
        ranks = {
            name.removesuffix(f".{_UP}"): tensor.shape[1]
            for name, tensor in tensors.items()
            if name.endswith(_UP)
        }
        rank = Counter(ranks.values()).most_common(1)[0][0]
        others = {
            _one_of(layer for layer in ranks if ranks[layer] == other): other
            for other in set(ranks.values()) - {rank}
        }
        config = LoraConfig(
            target_modules=_one_of(ranks),
            r=rank,
            lora_alpha=rank,  # the matrices are scaled already
            rank_pattern=others,
            alpha_pattern=others,
            use_dora=is_dora(tensors),
        )
        self._is_wrapped = True
        inject_adapter_in_model(config, self._module, adapter, low_cpu_mem_usage=True)
        set_peft_model_state_dict(self._module, tensors, adapter, low_cpu_mem_usage=True)
        self._module.eval().requires_grad_(False)

    def activate(self, strengths: Sequence[tuple[str, float]]) -> None:
        """Activate exactly these adapters in the layers, in this order."""
        if not self._is_wrapped:
            return
        set_adapter(self._module, [adapter for adapter, _ in strengths], inference_mode=True)
        for layer in self._module.modules():
            if isinstance(layer, LoraLayer):
                for adapter, strength in strengths:
                    layer.set_scale(adapter, strength)

    def remove(self, adapter: str) -> None:
        """Take an adapter out of all layers, also one that is in some only."""
        if self._is_wrapped:
            set_adapter(self._module, [], inference_mode=True)  # else peft chooses who is next
            delete_adapter(self._module, adapter, prefix="lora_")
            vars(self._module).get("peft_config", {}).pop(adapter, None)

    def _known(self, layer: str) -> str:
        """Find a layer by its name in a file; transformers 5.6 dropped a part of some names."""
        bare = layer.removeprefix("text_model.")
        for name in (layer, bare, f"text_model.{bare}"):
            if name in self._shapes:
                return name
        raise Unfit(f"the layer {self._name}.{layer}", "layers that the model has")

    def _lengths(self, layer: str, magnitude: torch.Tensor) -> torch.Tensor:
        shape = self._shapes[layer]
        if magnitude.numel() != shape[0]:
            found = f"{magnitude.numel()} DoRA magnitudes at {self._name}.{layer}"
            raise Unfit(found, str(shape[0]))
        return magnitude if len(shape) == 2 else magnitude.view(1, -1, 1, 1)

    def _settled(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        # A copy, since files of the CPU are mapped and may change in place.
        settled = tensor.to(self._device, self._dtype, copy=True).contiguous()
        check_tensor(f"{self._name}.{name}", settled)
        return settled


def is_dora(tensors: Iterable[str]) -> bool:
    """Whether tensors of these names, which are peft's, are a DoRA's."""
    return any(name.endswith(_MAGNITUDE) for name in tensors)


def _one_of(layers: Iterable[str]) -> str:
    """Make a pattern that matches these names alone; peft also tries it after any dot."""
    return f"^(?:{'|'.join(map(re.escape, layers))})"
