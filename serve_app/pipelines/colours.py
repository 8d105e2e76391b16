"""`Colours`: a linear map from latents to colours, fitted to a checkpoint's own VAE.

The colour of a latent cell is nearly a linear function of its channels, for the VAEs of all
families. The map is fitted once, to pictures of random colours that the VAE encodes: no other
weights are needed, and it takes the time of one small batch.
"""

import threading

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

__all__ = ["Colours"]

_CELLS = 16  # side of a picture to fit by, latent cells
_GRIDS = (1, 2, 3, 4, 6, 8, 8, 16)  # random colours per side of each
_SEED = 0


class Colours:
    """Fitted when first asked; blocks then. Safe to call from any thread."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae
        self._lock = threading.Lock()
        self._map: torch.Tensor | None = None  # (C + 1, 3); the last row is what black adds

    def of(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the colours of latents (C, H, W), as pipelines hold them: (H, W, 3), 0 to 1."""
        with self._lock:
            if self._map is None:
                self._map = self._fit()
        weights = self._map.to(latents.device)
        cells = latents.float().permute(1, 2, 0)
        return (cells @ weights[:-1] + weights[-1]).clamp(0, 1)

    @torch.inference_mode()
    def _fit(self) -> torch.Tensor:
        vae = self._vae
        cell_px = 2 ** (len(vae.config.block_out_channels) - 1)
        pictures = _random_pictures(_CELLS * cell_px)
        sent = (2 * pictures - 1).to(vae.device, next(vae.parameters()).dtype)
        latents = [vae.encode(one[None]).latent_dist.mode() for one in sent]  # little memory each
        cells = _scaled(torch.cat(latents).float(), vae).cpu().permute(0, 2, 3, 1).flatten(0, 2)
        colours = functional.avg_pool2d(pictures, cell_px).permute(0, 2, 3, 1).flatten(0, 2)
        ones = torch.ones(len(cells), 1)
        # By singular values: torch's default gave wrong maps where channels depend on each other.
        known = torch.cat([cells, ones], 1)
        solution: torch.Tensor = torch.linalg.lstsq(known, colours, driver="gelsd").solution
        return solution


def _random_pictures(side_px: int) -> torch.Tensor:
    """Draw soft and hard fields of colours, (N, 3, side, side), 0 to 1."""
    generator = torch.Generator().manual_seed(_SEED)
    pictures = []
    for number, grid in enumerate(_GRIDS):
        colours = torch.rand(1, 3, grid, grid, generator=generator)
        mode = "nearest" if number % 2 else "bicubic"
        pictures.append(functional.interpolate(colours, (side_px, side_px), mode=mode))
    return torch.cat(pictures).clamp(0, 1)


def _scaled(latents: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """Bring what the VAE encodes to what the denoiser works on."""
    config = vae.config
    shift, scale = config.get("shift_factor") or 0.0, config.scaling_factor
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        mean, deviation = (latents.new_tensor(one).view(1, -1, 1, 1) for one in (mean, deviation))
        scaled: torch.Tensor = (latents - mean) * scale / deviation
        return scaled
    shifted: torch.Tensor = (latents - shift) * scale
    return shifted
