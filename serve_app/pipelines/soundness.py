"""Whether weights are sound: complete, finite, and in memory that no file can change.

A one-step picture shows most harm, but not a NaN in a word that it did not use, nor a layer of the
text encoder that transformers made up because its tensor is missing.
"""

import math
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path

import safetensors
import torch
from diffusers import DiffusionPipeline
from torch import nn
from transformers import PreTrainedModel

from serve_app.models.weights.folder import weight_files
from serve_app.pipelines.addons.misfit import Unfit

__all__ = [
    "check_complete",
    "check_files",
    "check_filled",
    "check_finite",
    "check_module",
    "check_shapes",
    "check_tensor",
    "settle",
]

_CONV_DIM = 4  # of the weights of a convolution


def check_files(source: Path) -> None:
    """Read every tensor of the safetensors files, one at a time.

    Raises:
        Unfit: a tensor holds NaN or infinity.
        SafetensorError: a file is truncated or no safetensors file.
    """
    for file in [source] if source.is_file() else sorted(source.rglob("*.safetensors")):
        with safetensors.safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # no mapping
                check_tensor(f"{file.name}: {name}", opened.get_tensor(name))


def check_finite(part: str, module: nn.Module) -> None:
    """Look at all weights as they are on the device; raises Unfit at NaN or infinity."""
    for name, tensor in module.state_dict().items():
        check_tensor(f"{part}: {name}", tensor)


def check_tensor(name: str, tensor: torch.Tensor) -> None:
    """Raise Unfit when a tensor of real numbers holds NaN or infinity."""
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        tensor = tensor.float()  # torch tells nothing of numbers of eight bits
    if not tensor.is_floating_point() or not tensor.numel():
        return
    # NaN is least and greatest; for half precision on a CPU a twentieth of the time of `isfinite`.
    if not all(math.isfinite(bound) for bound in torch.aminmax(tensor)):
        raise Unfit(f"NaN or infinity in {name}", "finite numbers")


def check_shapes(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    """Raise Unfit unless the tensors are those that are wanted, by name and shape."""
    for name, tensor in wanted.items():
        if name not in found:
            raise Unfit(f"no {name}", f"one of the shape {tuple(tensor.shape)}")
        if found[name].shape != tensor.shape:
            here = tuple(found[name].shape)
            raise Unfit(f"{name} of the shape {here}", f"{tuple(tensor.shape)}")
    if strange := sorted(found.keys() - wanted.keys()):
        raise Unfit(f"{strange[0]}, which the model lacks", f"{len(wanted)} tensors, not it")


def check_complete(
    pipeline: DiffusionPipeline, folder: Path, others: Container[str], variant: str | None
) -> None:
    """Raise Unfit when a model of transformers has weights that are in no file.

    others: components that do not come from the folder. variant: of its files.
    """
    for part, module in pipeline.components.items():
        if isinstance(module, PreTrainedModel) and part not in others:
            check_module(part, module, folder / part, variant)


def check_filled(part: str, module: nn.Module) -> None:
    """Raise Unfit when weights are in no file: a single file leaves them without numbers."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise Unfit(
                f"no tensor for {name} of {part}", f"one of the shape {tuple(tensor.shape)}"
            )


def check_module(
    part: str, module: PreTrainedModel, folder: Path, variant: str | None = None
) -> None:
    """Raise Unfit when weights of this model are in no file of its folder.

    transformers draws what is missing at random, and says so in its log only; diffusers refuses.
    Names in files differ from those in memory, between versions too, so shapes are compared.
    """
    files = weight_files(folder, variant)
    if not files:
        return  # pickles, where they are allowed
    missing = Counter(tuple(weight.shape) for weight in module.parameters())
    missing.subtract(shape for file in files for shape in _shapes(file))
    if absent := [shape for shape, count in missing.items() if count > 0]:
        raise Unfit(f"no tensor for weights of {part}", f"one of the shape {absent[0]}")


def detach_from_files(module: nn.Module, *, channels_last: bool = False) -> None:
    """Copy weights that are mapped from files into memory of their own.

    On the CPU safetensors maps files; overwriting one in place would change weights that serve, and
    truncating it would kill the process.

    channels_last: the layout in which convolutions will be wanted, so that they are copied once.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        is_last = channels_last and tensor.dim() == _CONV_DIM
        form = torch.channels_last if is_last else torch.preserve_format
        tensor.data = tensor.data.clone(memory_format=form)


def _shapes(file: Path) -> list[tuple[int, ...]]:
    with safetensors.safe_open(file, "pt") as opened:
        return [tuple(opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118


def settle(
    name: str, component: torch.nn.Module, device: torch.device, *, channels_last: bool = False
) -> None:
    """Make a loaded module ready to serve; raises Unfit when its weights are not finite."""
    component.eval().requires_grad_(False)
    check_finite(name, component)
    if device.type == "cpu":
        detach_from_files(component, channels_last=channels_last)
