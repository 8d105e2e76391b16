"""What a sampler's step says of the finished picture: the clean latents that it believes in.

A step has a noisy sample and the denoiser's prediction for it; what the prediction is of, and how
much of the sample is noise, tell the picture without noise.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin

__all__ = ["Estimate", "seen"]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One step as it was made; nothing is computed before `clean`.

    prediction, sample: (B, C, H, W), or packed. index: of the step in the scheduler's noise levels.
    """

    scheduler: SchedulerMixin
    prediction: torch.Tensor
    timestep: torch.Tensor | float
    sample: torch.Tensor
    index: int

    def clean(self) -> torch.Tensor:
        """Compute the latents without noise, float32; waits for the device. Any thread may call."""
        sample, prediction = self.sample.float(), self.prediction.float()
        config = self.scheduler.config
        if "sigma_data" in config:  # EDM
            sigma = self.scheduler.sigmas[self.index]
            found = self.scheduler.precondition_outputs(sample, prediction, sigma)
        else:
            signal, noise, sample = self._levels(sample)
            kind = config.get("prediction_type", "flow_prediction")
            if kind == "epsilon":
                found = (sample - noise * prediction) / max(signal, 1e-4)
            elif kind == "v_prediction":
                found = signal * sample - noise * prediction
            elif kind == "flow_prediction":
                found = sample - noise * prediction
            else:
                found = prediction
        return torch.nan_to_num(found)

    def _levels(self, sample: torch.Tensor) -> tuple[float, float, torch.Tensor]:
        """Return shares of picture and noise, and the sample as the sum of both in these shares."""
        scheduler = self.scheduler
        if not hasattr(scheduler, "sigmas"):
            share = float(scheduler.alphas_cumprod[int(self.timestep)])
            return share**0.5, (1 - share) ** 0.5, sample
        sigma = scheduler.sigmas[self.index]
        if "prediction_type" not in scheduler.config:  # flow matching
            return 1 - float(sigma), float(sigma), sample
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            signal, noise = scheduler._sigma_to_alpha_sigma_t(sigma)
            return float(signal), float(noise), sample
        signal = float((1 + sigma.double() ** 2) ** -0.5)  # here samples are picture + sigma noise
        return signal, float(sigma) * signal, sample * signal


@contextlib.contextmanager
def seen(scheduler: SchedulerMixin, see: Callable[[Estimate], None]) -> Iterator[None]:
    """Show each step of a request's own scheduler to `see`, but those that refine another."""
    step = scheduler.step

    @functools.wraps(step)  # pipelines look at what it takes
    def step_and_show(
        prediction: torch.Tensor,
        timestep: torch.Tensor | float,
        sample: torch.Tensor,
        *args: object,
        **kwargs: object,
    ) -> object:
        is_first = getattr(scheduler, "state_in_first_order", True)
        result = step(prediction, timestep, sample, *args, **kwargs)
        if is_first:
            index = (getattr(scheduler, "step_index", None) or 1) - 1
            see(Estimate(scheduler, prediction, timestep, sample, index))
        return result

    scheduler.step = step_and_show
    try:
        yield
    finally:
        del scheduler.step  # or both would hold each other, and the tensors of the last steps
