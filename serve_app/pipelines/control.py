"""`Control`: what the ControlNets of one request are given, and what its pipeline holds for them.

Stock pipelines call their `controlnet` before each call of the UNet. The stand-in leaves these
calls to the engine, where they share forwards, and adds up what several nets say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from diffusers import ControlNetModel, MultiControlNetModel
from PIL import Image

from serve_app.engine.lane import Call
from serve_app.engine.weave import park
from serve_app.pipelines.addons.controlnets import EMBEDDING, SCALES, ControlNet
from serve_app.pipelines.compose import Box
from serve_app.pipelines.proxy import Run, per_row, stand_in
from serve_app.types import GenerationSpec, Kind

__all__ = ["RESIDUALS", "Control", "without_nothing"]

# Arguments of a UNet: what is added to it on its way down, and in its middle.
RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual")


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """The ControlNets of one request.

    nets: in the order of the request. scales: how strongly each acts, never 0.
    pictures: RGB, of the frame's size; none: it is made of the init picture and the mask.
    start, end: shares of the steps at which they begin and end to act.
    """

    nets: tuple[ControlNet, ...]
    scales: tuple[float, ...]
    pictures: tuple[Image.Image | None, ...]
    guess_mode: bool = False
    start: float = 0.0
    end: float = 1.0

    @classmethod
    def of(
        cls,
        spec: GenerationSpec,
        nets: tuple[ControlNet, ...],
        pictures: tuple[Image.Image | None, ...],
    ) -> Self:
        """Pair the nets that act with what a spec says of them."""
        scales = tuple(use.scale for use in spec.acting_controlnets)
        return cls(nets, scales, pictures, spec.guess_mode, spec.control_start, spec.control_end)

    def stand_in(self) -> ControlNetModel | MultiControlNetModel:
        """Make what the pipeline of one request holds as its `controlnet`."""
        modules = [stand_in(net.module, net.module.forward) for net in self.nets]
        whole = modules[0] if len(modules) == 1 else MultiControlNetModel(modules)
        whole.__dict__["forward"] = _Caller(self.nets)
        return whole

    def arguments(
        self, kind: Kind, box: Box | None, init: object, mask: object
    ) -> dict[str, object]:
        """Name what a stock pipeline takes for its ControlNets.

        box: part of the frame that is painted; none: the whole. init, mask: pictures of that part.
        """
        pictures = [
            _inpaint_picture(init, mask)
            if picture is None
            else picture.crop(box)
            if box
            else picture
            for picture in self.pictures
        ]
        is_one = len(self.nets) == 1
        return {
            "image" if kind is Kind.TEXT2IMG else "control_image": pictures[0]
            if is_one
            else pictures,
            "controlnet_conditioning_scale": self.scales[0] if is_one else list(self.scales),
            "guess_mode": self.guess_mode,
            "control_guidance_start": self.start,
            "control_guidance_end": self.end,
        }


def _inpaint_picture(init: object, mask: object) -> torch.Tensor:
    """Mark what is to be repainted in a picture, (1, 3, H, W), as inpainting ControlNets know it.

    Source: model card of lllyasviel/control_v11p_sd15_inpaint, 2023: -1 where the mask is white.
    """
    assert isinstance(init, Image.Image), "open_controls asks for an inpainting"
    assert isinstance(mask, Image.Image), "open_controls asks for an inpainting"
    values = np.asarray(init.convert("RGB"), np.float32) / 255
    values = np.where(np.asarray(mask.convert("L"))[..., None] >= 128, np.float32(-1), values)
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def without_nothing(run: Run) -> Run:
    """Call a UNet without residuals in the steps for which no ControlNet gave any."""

    def run_plain(arguments: dict[str, object]) -> object:
        if not arguments.get(RESIDUALS[0]):
            arguments = {name: value for name, value in arguments.items() if name not in RESIDUALS}
        return run(arguments)

    return run_plain


class _Caller:
    """Parks a call for each net that acts in a step, in the order of their ranks."""

    def __init__(self, nets: Sequence[ControlNet]) -> None:
        self._nets = nets
        self._embeddings: dict[int, torch.Tensor] = {}
        self._scales: dict[tuple[ControlNet, float, bool], torch.Tensor] = {}

    def __call__(  # as stock pipelines call it
        self,
        sample: torch.Tensor,
        timestep: object,
        *,
        controlnet_cond: torch.Tensor | list[torch.Tensor],
        conditioning_scale: float | list[float],
        guess_mode: bool = False,
        **arguments: object,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        assert arguments.get("return_dict") is False, "stock pipelines ask for tuples"
        pictures = controlnet_cond if isinstance(controlnet_cond, list) else [controlnet_cond]
        scale = conditioning_scale
        scales = scale if isinstance(scale, list) else [scale]
        del arguments["return_dict"]
        arguments |= {"sample": sample, "timestep": per_row(timestep, sample, True)}
        total: list[torch.Tensor] = []
        for number in sorted(range(len(self._nets)), key=lambda n: self._nets[n].lane.rank):
            if scales[number]:
                own = {
                    EMBEDDING: self._embedding(number, pictures[number]),
                    SCALES: self._scale_row(self._nets[number], scales[number], guess_mode),
                }
                added = _ask(self._nets[number], arguments | own)
                total = [a + b for a, b in zip(total, added, strict=True)] if total else added
        # Guess mode fills up the middle even where nothing acts.
        return total[:-1], total[-1] if total else sample.new_zeros(len(sample), 1, 1, 1)

    def _embedding(self, number: int, picture: torch.Tensor) -> torch.Tensor:
        """Compute the features of a net's control picture, all of whose rows are equal, once."""
        if number not in self._embeddings:
            module, first = self._nets[number].module, picture[:1]
            if module.config.controlnet_conditioning_channel_order == "bgr":
                first = first.flip(1)
            self._embeddings[number] = module.controlnet_cond_embedding(first)
        return self._embeddings[number]

    def _scale_row(self, net: ControlNet, scale: float, guess_mode: bool) -> torch.Tensor:
        """Return how strongly each output acts, (1, R): in guess mode the deep ones more."""
        key = (net, scale, guess_mode)
        if key not in self._scales:
            device, places = net.module.device, net.num_outputs
            if guess_mode and not net.module.config.global_pool_conditions:
                row = torch.logspace(-1, 0, places, device=device) * scale
            else:
                row = torch.full((places,), scale, device=device)
            self._scales[key] = row[None]
        return self._scales[key]


def _ask(net: ControlNet, arguments: dict[str, object]) -> list[torch.Tensor]:
    sample = arguments["sample"]
    assert isinstance(sample, torch.Tensor), "the sample is a tensor"
    rows = len(sample)
    outputs = park(Call(net.lane, arguments, rows, size=sample.numel() // rows))
    assert isinstance(outputs, tuple), "lanes of ControlNets give tuples"
    return [output for output in outputs if isinstance(output, torch.Tensor)]
