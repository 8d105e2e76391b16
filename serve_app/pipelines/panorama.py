"""`panorama`: pictures wider than a model can see, painted through overlapping windows.

At every step each window of the latents is denoised at the model's native size and the predictions
are averaged where windows overlap. Source: MultiDiffusion, Bar-Tal et al. 2023, arXiv 2302.08113,
equation 5; for samplers that are linear in the prediction, averaging it and averaging the steps
are the same.

The denoiser's proxy does it, so any stock pipeline and sampler can be used, and windows share
forwards with other requests of the native size.
"""

import itertools
from collections.abc import Iterator

import torch

from serve_app.engine.stacking import stack
from serve_app.pipelines.proxy import Run
from serve_app.pipelines.specs import window_starts

__all__ = ["windowed"]


def windowed(
    run: Run, sample: str, shared: frozenset[str], window: int, overlap: float, at_once: int
) -> Run:
    """Denoise through windows.

    sample: name of the argument (B, C, H, W). shared: names of arguments without rows.
    window: side of a window in latent cells. at_once: windows of one call.
    """

    def run_windows(arguments: dict[str, object]) -> object:
        wide = arguments[sample]
        assert isinstance(wide, torch.Tensor), "the sample is a tensor"
        rows, _, height, width = wide.shape
        tops, lefts = (window_starts(side, window, overlap) for side in (height, width))
        boxes = itertools.product(tops, lefts)
        total: torch.Tensor | None = None
        times = torch.zeros_like(wide[:1, :1])
        for batch in _batched(boxes, at_once):
            places = [(slice(y, y + window), slice(x, x + window)) for y, x in batch]
            parts = [(arguments | {sample: wide[:, :, *place]}, rows) for place in places]
            noise = _noise(run(stack(parts, shared)))
            if total is None:
                total = noise.new_zeros(rows, noise.shape[1], height, width)
            for place, own in zip(places, torch.split(noise, rows), strict=True):
                total[:, :, *place] += own
                times[:, :, *place] += 1
        assert total is not None, "there is always a window"
        return (total / times,)

    return run_windows


def _noise(outputs: object) -> torch.Tensor:
    assert isinstance(outputs, tuple), "denoisers are asked for tuples"
    noise = outputs[0]
    assert isinstance(noise, torch.Tensor), "predictions are tensors"
    return noise


def _batched(boxes: Iterator[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    while batch := list(itertools.islice(boxes, size)):
        yield batch
