"""What is done to guided predictions: self-attention guidance, and rescaling.

`self_attention` is perturbed-attention guidance.

Each step runs the guided row once more with the self-attention of the UNet's middle block reduced
to the identity, and moves the prediction away from that. Source: Ahn et al. 2024,
arXiv 2403.17377, equation 14, with diffusers' choice of layers ("mid").

Instead of a pipeline of its own for each kind, the denoiser's proxy adds the row, so that every
stock pipeline is guided. Its predictions are all shifted by the same amount, which passes through
classifier-free guidance unchanged: (u + x) + s ((c + x) - (u + x)) = u + s (c - u) + x.

`guidance_rescale` gives guided predictions the contrast of unguided ones. Source: Lin et al. 2023,
arXiv 2305.08891, section 3.4. Where a stock pipeline has no argument for it, its denoiser answers
with the rescaled prediction in both rows, which classifier-free guidance leaves as it is.
"""

import torch
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import nn
from torch.utils.hooks import RemovableHandle

from serve_app.engine.stacking import slice_rows, stack
from serve_app.pipelines.proxy import Run

__all__ = ["Perturbation", "guided", "rescaled"]

_MARK = "is_perturbed"  # argument of the lane: which rows, (B,) of bool


def guided(run: Run, sample: str, shared: frozenset[str], scale: float) -> Run:
    """Guide a denoiser's calls of one picture: one row, or two with classifier-free guidance.

    sample: name of the argument (B, C, H, W). shared: names of arguments without rows.
    scale: 0 changes nothing.
    """

    def run_guided(arguments: dict[str, object]) -> object:
        rows = _tensor(arguments[sample]).shape[0]
        asked = rows // 2  # the row of the prompt: the second of two, or the only one
        whole = stack([(arguments, rows)], shared)
        again = {
            name: value if name in shared else slice_rows(value, asked, rows)
            for name, value in whole.items()
        }
        marks = torch.arange(rows + 1, device=_tensor(arguments[sample]).device) == rows
        outputs = run(stack([(whole, rows), (again, 1)], shared) | {_MARK: marks})
        assert isinstance(outputs, tuple), "denoisers are asked for tuples"
        noise = _tensor(outputs[0])
        return (noise[:rows] + scale * (noise[asked:rows] - noise[rows:]),)

    return run_guided


def rescaled(run: Run, guidance_scale: float, share: float) -> Run:
    """Rescale what a denoiser's calls of one picture give after classifier-free guidance.

    share: 0 changes nothing, 1 gives the contrast of the prediction for the prompt.
    """

    def run_rescaled(arguments: dict[str, object]) -> object:
        outputs = run(arguments)
        assert isinstance(outputs, tuple), "denoisers are asked for tuples"
        noise = _tensor(outputs[0])
        if len(noise) == 1:
            return outputs  # nothing is guided
        plain, asked = noise.chunk(2)
        wanted = rescale_noise_cfg(plain + guidance_scale * (asked - plain), asked, share)
        return (torch.cat((wanted, wanted)),)

    return run_rescaled


class Perturbation:
    """The self-attention layers of a UNet's middle block, and which rows of a forward skip them.

    Only for the engine thread.

    Args:
        denoiser: of the checkpoint; a transformer has no such layers.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        middle = getattr(denoiser, "mid_block", None)
        modules = () if middle is None else middle.named_modules()
        self._layers = [
            module
            for name, module in modules
            if isinstance(module, Attention) and name.endswith("attn1")
        ]
        self._hooks: list[RemovableHandle] = []
        self._rows: torch.Tensor | None = None

    @property
    def is_possible(self) -> bool:
        """Whether the denoiser has such layers, and heeds their hooks."""
        return bool(self._layers)

    def apply(self, is_wanted: bool) -> None:
        """Make the layers heed the marks, or restore them to how they were made."""
        while self._hooks:
            self._hooks.pop().remove()
        if is_wanted:
            self._hooks += [layer.register_forward_hook(self._skip) for layer in self._layers]

    def reading(self, run: Run) -> Run:
        """Take the marks out of a forward's arguments before the module gets them."""

        def run_marked(arguments: dict[str, object]) -> object:
            marks = arguments.get(_MARK)
            self._rows = None if marks is None else _tensor(marks)
            return run({name: value for name, value in arguments.items() if name != _MARK})

        return run_marked

    def _skip(
        self, layer: Attention, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        """Return each place's own value in marked rows, (B, T, D), as if it saw nothing else."""
        if self._rows is None:
            return output
        own = layer.to_out[0](layer.to_v(inputs[0]))
        return torch.where(self._rows[:, None, None], own, output)


def _tensor(value: object) -> torch.Tensor:
    assert isinstance(value, torch.Tensor), "samples, marks and predictions are tensors"
    return value
