"""`to_device`: copies from the CPU for which nobody waits."""

from collections.abc import Mapping

import torch

__all__ = ["beside", "to_device"]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for what the device has to do before.

    A copy from memory that can be swapped out waits for all of it; from pinned memory it takes its
    turn. What is on the device already is returned as it is.
    """
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def beside(sample: torch.Tensor, arguments: Mapping[str, object]) -> dict[str, object]:
    """Bring the tensors of a call to the device of its sample, such as timesteps of all rows."""
    return {
        name: to_device(value, sample.device) if isinstance(value, torch.Tensor) else value
        for name, value in arguments.items()
    }
