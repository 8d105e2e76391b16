"""`draw_in_float32`: a seed means the same noise in every precision.

torch draws other numbers in half precision than in float32, and coarse ones: in bfloat16 256
lengths, none beyond 3.4. So pipelines draw in float32 here and round what they get.
"""

import sys

import torch
from diffusers.models.autoencoders import vae
from diffusers.utils import torch_utils

from serve_app.pipelines.families import FAMILIES

__all__ = ["draw_in_float32", "randn_tensor"]

_Generators = torch.Generator | list[torch.Generator]


def randn_tensor(
    shape: tuple[int, ...],
    generator: _Generators | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
) -> torch.Tensor:
    """Draw as diffusers does, in float32 at least, and round to the dtype."""
    wanted = dtype or torch.get_default_dtype()
    drawn: torch.Tensor = torch_utils.randn_tensor(
        shape,
        generator=generator,
        device=device,
        dtype=torch.promote_types(wanted, torch.float32),
        layout=layout,
    )
    return drawn.to(wanted)


def draw_in_float32() -> None:
    """Let the pipelines of all families draw so; in this process, from now on."""
    classes = [
        cls
        for family in FAMILIES.values()
        for cls in (*family.pipelines.values(), *family.controlled.values())
    ]
    for module in (vae, *(sys.modules[cls.__module__] for cls in classes)):
        module.randn_tensor = randn_tensor
