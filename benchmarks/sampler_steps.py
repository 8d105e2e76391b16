"""What a sampler's step costs: `python -m benchmarks.sampler_steps`.

diffusers' own class against the one that is served, by turns in one run: processor time per step
of a request whose schedule others had before, and operations on tensors that are not mere views.
"""

import argparse
import copy
import statistics
import time

import diffusers
import torch
from diffusers import SchedulerMixin
from torch.utils._python_dispatch import TorchDispatchMode

from serve_app.pipelines.samplers.schedulers import Schedulers
from serve_app.pipelines.samplers.solvers import SOLVERS
from serve_app.types import GenerationSpec, Kind

__all__ = ["Operations", "steps_of"]

_BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_OFFSET = {"steps_offset": 1, "timestep_spacing": "leading", "skip_prk_steps": True}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that are not mere views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


def steps_of(scheduler: SchedulerMixin, num_steps: int, side: int) -> tuple[float, float]:
    """Run all steps of a schedule on noise; microseconds of the processor and operations a step."""
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(1, 4, side, side, generator=generator)
    output = torch.randn(1, 4, side, side, generator=generator)
    with torch.inference_mode():
        began = time.process_time()
        _run(copy.deepcopy(scheduler), first, output)
        spent_s = time.process_time() - began
        with Operations() as operations:
            _run(copy.deepcopy(scheduler), first, output)
    number = len(scheduler.timesteps)
    return spent_s / number * 1e6, operations.number / number


def _run(scheduler: SchedulerMixin, sample: torch.Tensor, output: torch.Tensor) -> None:
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(output, timestep, sample, return_dict=False)[0]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--side", type=int, default=64, help="of the latents, cells")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    print("| sampler | diffusers: us, operations | served: us, operations | ratio |")
    print("|---|---|---|---|")
    served = Schedulers(diffusers.DDIMScheduler(**_BASE, steps_offset=1))
    for name in SOLVERS:
        stock = getattr(diffusers, name).from_config(_BASE | _OFFSET)
        ours = served.make(_spec(name, options.steps))
        steps_of(ours, options.steps, options.side)  # others had this schedule before
        found = [
            [steps_of(scheduler, options.steps, options.side) for scheduler in (stock, ours)]
            for _ in range(options.rounds)
        ]
        cells = [
            f"{statistics.median(row[way][0] for row in found):.0f}, {found[0][way][1]:.1f}"
            for way in range(2)
        ]
        ratio = statistics.median(row[0][0] / row[1][0] for row in found)
        print(
            f"| {name.removesuffix('Scheduler')} | {' | '.join(cells)} | {ratio:.1f} |", flush=True
        )


def _spec(scheduler: str, steps: int) -> GenerationSpec:
    return GenerationSpec(
        model_id="any",
        kind=Kind.TEXT2IMG,
        prompt="",
        height=512,
        width=512,
        scheduler=scheduler,
        steps=steps,
        seed=0,
    )


if __name__ == "__main__":
    main()
