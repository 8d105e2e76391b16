"""diffusers' sampler classes, with their faults corrected.

Each keeps the name and the configuration of the class that it corrects, and computes the same
wherever that one is right. What is wrong in diffusers 0.42 was found with a denoiser that knows the
picture (`docs/samplers.md`).
"""

import functools
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin

from serve_app.pipelines.samplers.names import SAMPLERS
from serve_app.pipelines.samplers.tabulated import TabulatedFlowSampler, TabulatedSampler

__all__ = ["SOLVERS", "own_solver"]

Device = str | torch.device | None


class _FromFirst:
    """Begins at the first timestep, also where the second is equal to it.

    Karras' noise levels are rounded to timesteps, and with zero terminal signal-to-noise several
    of the first ones to the same. Text to image sets no index to begin at, so diffusers looks the
    timestep up and takes the second of those that fit: the last step then finds no noise level.

    The constructors of some classes compute all 1000 timesteps, which takes KDPM2 more than a
    second; pipelines replace them by the steps that they want. Here they compute one.
    """

    sigmas: torch.Tensor
    timesteps: torch.Tensor

    def set_timesteps(self, steps: int, *args: Any, **kwargs: Any) -> None:
        is_made = "_step_index" in vars(self)
        super().set_timesteps(steps if is_made else 1, *args, **kwargs)  # type: ignore[misc]
        self.set_begin_index(0)  # type: ignore[attr-defined]


class _Pndm(diffusers.PNDMScheduler):  # type: ignore[misc]
    """Warms up where it begins, takes velocities, and any spacing of timesteps.

    It calls the denoiser twice at its second timestep, to begin with an order of two. Where image
    to image leaves out the first timesteps it left out that one too, but went back all the same:
    all later steps came one too late, and the noise of one was never removed. It combined
    velocities of several timesteps, which only noises allow; and it took the next timestep to be
    a constant distance away, which rounding and other spacings belie.

    skipped: how many timesteps image to image leaves out.
    """

    skipped = 0

    def set_timesteps(self, num_inference_steps: int, device: Device = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        twice = self.skipped + 1
        times = np.flip(self._timesteps).astype(np.int64)
        self.plms_timesteps = np.concatenate([times[: twice + 1], times[twice:]])
        self.timesteps = torch.from_numpy(self.plms_timesteps).to(device)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> object:
        if self.config.prediction_type == "v_prediction":
            signal = self.alphas_cumprod[timestep]
            model_output = signal**0.5 * model_output + (1 - signal) ** 0.5 * sample
        return super().step(model_output, timestep, sample, return_dict)

    def _get_prev_sample(
        self, sample: torch.Tensor, timestep: int, prev_timestep: int, model_output: torch.Tensor
    ) -> object:
        here = self.skipped + (self.counter if self.counter > 1 else 0)
        following = self.skipped + max(self.counter, 1) + (self.counter > 1)
        times = [*self.plms_timesteps, -1]
        timestep, prev_timestep = times[here], times[following]
        if self.config.prediction_type == "v_prediction":  # what diffusers expects
            signal = self.alphas_cumprod[timestep]
            model_output = (model_output - (1 - signal) ** 0.5 * sample) / signal**0.5
        return super()._get_prev_sample(sample, timestep, prev_timestep, model_output)


class _Lms(_FromFirst, diffusers.LMSDiscreteScheduler):  # type: ignore[misc]
    """Raises its order with the steps that were done, not with those of the schedule.

    The first step of image to image is not the schedule's first, so it began with the order of
    four, and counted the derivatives that it did not have as zero. Its integrals are of
    polynomials; to approach them took 12 ms a step, on the thread that all requests share.
    """

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        order: int = 4,
        return_dict: bool = True,
    ) -> object:
        order = min(order, len(self.derivatives) + 1)
        return super().step(model_output, timestep, sample, order, return_dict)

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        levels = self.sigmas.double().numpy()
        others = levels[t - order + 1 : t + 1][::-1] - levels[t]
        node, others = others[current_order], np.delete(others, current_order)
        integral = np.polyint(np.atleast_1d(np.poly(others) / np.prod(node - others)))
        return float(np.polyval(integral, levels[t + 1] - levels[t]))


class _Deis(_FromFirst, diffusers.DEISMultistepScheduler):  # type: ignore[misc]
    """Ends at the least noise also with Karras' levels, of which a single one is the greatest."""

    def set_timesteps(self, steps: int, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(steps, *args, **kwargs)
        self.sigmas[-1] = ((1 - self.alphas_cumprod[0]) / self.alphas_cumprod[0]) ** 0.5


class _EulerAncestral(_FromFirst, diffusers.EulerAncestralDiscreteScheduler):  # type: ignore[misc]
    """Takes noise levels in double precision.

    The noise to be added is the root of a difference; where a level is thousands of times less
    than the one before, rounding made it negative, and the picture no numbers.
    """

    def set_timesteps(self, steps: int, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(steps, *args, **kwargs)
        self.sigmas = self.sigmas.double()


class _Kdpm2Ancestral(_FromFirst, diffusers.KDPM2AncestralDiscreteScheduler):  # type: ignore[misc]
    """Knows the levels that rounding turned into no numbers, as in `_EulerAncestral`.

    Before noise is added it goes down to the next level squared, divided by this one; so the
    level half way there, on a logarithmic scale, is the next one.
    """

    sigmas_down: torch.Tensor
    sigmas_interpol: torch.Tensor

    def set_timesteps(self, steps: int, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(steps, *args, **kwargs)
        levels = self.sigmas[::2]
        following = torch.cat([levels[1:], levels.new_zeros(1)])
        self.sigmas_down = _filled(self.sigmas_down, _doubled(following**2 / levels))
        self.sigmas_interpol = _filled(self.sigmas_interpol, _doubled(following))
        self.timesteps = _filled(self.timesteps, self.timesteps.roll(-1))


def _doubled(levels: torch.Tensor) -> torch.Tensor:
    """Double the entry of each level but the first, and add one to the last, as diffusers does."""
    return torch.cat([levels[:1], levels[1:].repeat_interleave(2), levels[-1:]])


def _filled(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return torch.where(values.isnan(), others, values)


# Own samplers of checkpoints whose steps are linear, as those of all named samplers are.
_LINEAR = {
    "DPMSolverMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
}
_CORRECTED = {
    "PNDMScheduler": _Pndm,
    "LMSDiscreteScheduler": _Lms,
    "DEISMultistepScheduler": _Deis,
    "EulerAncestralDiscreteScheduler": _EulerAncestral,
    "KDPM2AncestralDiscreteScheduler": _Kdpm2Ancestral,
}


def _solver(name: str) -> type[SchedulerMixin]:
    stock = getattr(diffusers, name)
    bases: tuple[type, ...] = (_CORRECTED.get(name, stock),)
    if hasattr(stock, "set_begin_index") and name not in _CORRECTED:
        bases = (_FromFirst, stock)
    return type(name, (TabulatedSampler, *bases), {"__doc__": bases[0].__doc__})


def own_solver(base: SchedulerMixin) -> type[SchedulerMixin]:
    """Return the class that runs a checkpoint's own sampler, of flow matching or EDM."""
    stock, config = type(base), base.config
    cuts = config.get("thresholding") or config.get("clip_sample")  # by the picture: not linear
    if cuts or config.get("stochastic_sampling") or stock.__name__ not in _LINEAR:
        return stock

    @functools.wraps(stock.set_timesteps)  # pipelines look at which arguments it takes
    def set_timesteps(self: TabulatedSampler, *args: Any, **kwargs: Any) -> None:
        TabulatedSampler.set_timesteps(self, *args, **kwargs)

    namespace = {"__doc__": stock.__doc__, "set_timesteps": set_timesteps}
    tabulated = TabulatedFlowSampler if hasattr(stock, "scale_noise") else TabulatedSampler
    return type(stock.__name__, (tabulated, stock), namespace)


SOLVERS: Mapping[str, type[SchedulerMixin]] = {
    sampler.runs: _solver(sampler.runs) for sampler in SAMPLERS.values()
}
