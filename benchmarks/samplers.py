"""What each sampler leaves of the noise where the denoiser knows the picture: `docs/samplers.md`.

Run: `python -m benchmarks.samplers > docs/samplers.md`; takes some minutes of one core.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers.utils import logging

from benchmarks.denoiser import Checkpoint, residual
from serve_app.pipelines.samplers.names import ALGORITHMS, SAMPLERS
from serve_app.pipelines.samplers.schedulers import Schedulers, ran_sampler
from serve_app.pipelines.specs import run_strength
from serve_app.types import GenerationSpec, Kind

__all__ = [
    "CHECKPOINTS",
    "GRID",
    "LIMIT",
    "ROWS",
    "Cell",
    "Grid",
    "Row",
    "Runs",
    "cells",
    "head",
    "table",
]

LIMIT = 0.05  # what may be left, in standard deviations of the picture
Runs = Sequence[tuple[int, float]]  # steps and strength
Grid = Mapping[Kind, Runs]


# Few, many, the numbers at which some class of diffusers fails, and round ones that people use.
_STEPS = (1, 2, 3, 4, 5, 7, 10, 20, 21, 30, 50)


def _accepted(strengths: Sequence[float]) -> Runs:
    """Return the steps with all strengths that the API accepts: one step runs."""
    runs = itertools.product(_STEPS, strengths)
    return [(steps, strength) for steps, strength in runs if int(steps * strength) >= 1]


GRID: Grid = {
    Kind.TEXT2IMG: _accepted([1.0]),
    Kind.IMG2IMG: _accepted([0.02, 0.04, 0.1, 0.3, 0.5, 0.8, 1.0]),
    Kind.INPAINT: _accepted([0.1, 0.5, 1.0]),
}

_HEAD = """# Samplers

This page shows how much of the noise each scheduler name leaves when the denoiser knows the
picture, so that only the sampler can be wrong. Each figure is the root mean square of the
difference from the picture, in standard deviations of the picture; at most {limit} is allowed. It
is the worst over runs of {steps} steps, for img2img at strengths of 0.02, 0.04, 0.1, 0.3, 0.5,
0.8 and 1, and for inpaint (4 channels) at 0.1, 0.5 and 1. Where there are two figures, the first
is without and the second with `use_karras_sigmas`. A sampler that ends at the model's smallest
noise level, instead of at zero, leaves 0.01 to 0.04. The denoiser sees what a UNet sees, and knows
the noise with which the checkpoint was trained; the loop is that of the stock pipelines
(`benchmarks/denoiser.py`). `python -m benchmarks.samplers` writes this page;
`tests/unit/pipelines/test_samplers.py` measures a part of it.

Where diffusers 0.42 is wrong, `serve_app/pipelines/samplers/` corrects it. Where a class cannot
run at all, the class under "runs" runs instead, and `meta` of the reply names it.

{corrections}

An exact denoiser says nothing about accuracy: with two or three steps, Heun and KDPM2 ancestral
leave noise on a real model, as they do in diffusers.
"""
_CORRECTIONS = (
    ("where", "in diffusers", "here"),
    ("---", "---", "---"),
    (
        "DDPM, DDIM, unless the file says `clip_sample: false`",
        "are cut off at 1",
        "are never cut off",
    ),
    ("betas that the file leaves out", "are the class's own", "are the model's"),
    ("PNDM, img2img and inpaint", "the noise of a step remains", "warms up where it begins"),
    ("PNDM, v-prediction", "is wrong up to 7 steps", "combines noises, not velocities"),
    ("PNDM, any spacing but leading", "aims at other timesteps", "aims at the next"),
    ("DDIM, `timestep_spacing: linspace`", "aims at other timesteps", "is spaced as leading"),
    (
        "PNDM, zero terminal SNR",
        "leaves noise and wrong colours up to 5 steps",
        "is replaced by DDIM",
    ),
    (
        "LMS, img2img and inpaint",
        "leaves noise at low strengths",
        "takes its order from the steps done",
    ),
    ("DEIS, one step, Karras", "leaves noise", "ends at the least noise"),
    ("one step, leading or linspace", "begins at the last timestep", "is spaced as trailing"),
    ("Karras, several first timesteps equal", "fails", "begins at the first"),
    (
        "zero terminal SNR in classes without it",
        "leaves the betas as they were",
        "rescales the betas",
    ),
    ("Euler and KDPM2 ancestral, steep steps", "give NaN", "use levels that cannot round so"),
    ("cosine betas, prediction of noise, Karras", "leave noise at few steps", "run without Karras"),
    ("prediction of the picture", "PNDM, KDPM2 and the ancestral ones fail", "the nearest runs"),
    (
        "options of another class in the file",
        "leave noise, or fail",
        "are taken only where they fit",
    ),
)


def head() -> str:
    """Return what the page says before its tables."""
    rows = "\n".join(f"| {' | '.join(row)} |" for row in _CORRECTIONS)
    steps = ", ".join(str(number) for number in _STEPS)
    return _HEAD.format(limit=LIMIT, steps=steps, corrections=rows)


def _sd(scheduler: str, **config: object) -> Checkpoint:
    return Checkpoint("StableDiffusion", scheduler, config)


def _xl(scheduler: str, **config: object) -> Checkpoint:
    return Checkpoint("StableDiffusionXL", scheduler, config)


def _own(name: str) -> Checkpoint:
    path = Path(__file__).parents[1] / "checkpoints" / name / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    return _sd(config["_class_name"], **config)


_SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_VELOCITY = {"prediction_type": "v_prediction", "steps_offset": 1}
_ZERO_SNR = _SCALED | _VELOCITY | {"rescale_betas_zero_snr": True}
CHECKPOINTS: Mapping[str, Checkpoint] = {
    "Stable Diffusion 1.5": _sd(
        "PNDMScheduler", **_SCALED, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1
    ),
    "Stable Diffusion 2.1, v-prediction": _sd(
        "DDIMScheduler", **_SCALED, **_VELOCITY, clip_sample=False, set_alpha_to_one=False
    ),
    "Stable Diffusion XL": _xl(
        "EulerDiscreteScheduler",
        **_SCALED,
        clip_sample=False,
        interpolation_type="linear",
        prediction_type="epsilon",
        sample_max_value=1.0,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
        timestep_spacing="leading",
        use_karras_sigmas=False,
    ),
    "Zero terminal SNR, trailing": _sd(
        "DDIMScheduler", **_ZERO_SNR, clip_sample=False, timestep_spacing="trailing"
    ),
    "XL with zero terminal SNR, leading": _xl(
        "EulerDiscreteScheduler", **_ZERO_SNR, timestep_spacing="leading"
    ),
    "XL without `clip_sample`": _xl("DDIMScheduler", **_SCALED),
    "DPM++ 2M SDE Karras, linspace": _sd(
        "DPMSolverMultistepScheduler",
        **_SCALED,
        algorithm_type="sde-dpmsolver++",
        lower_order_final=True,
        solver_order=2,
        steps_offset=1,
        timestep_spacing="linspace",
        use_karras_sigmas=True,
    ),
    "Cosine betas": _sd("DDPMScheduler", beta_schedule="squaredcos_cap_v2"),
    "Linear betas, nothing said": _sd("DDIMScheduler"),
    "XL that predicts the picture": _xl(
        "EulerDiscreteScheduler", **_SCALED, prediction_type="sample", timestep_spacing="trailing"
    ),
    "The demo models": _own("demo"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A scheduler name with an algorithm type."""

    name: str
    algorithm: str | None = None

    def __str__(self) -> str:
        short = self.name.removesuffix("Scheduler")
        return f"{short}, {self.algorithm}" if self.algorithm else short


ROWS = tuple(
    Row(name, algorithm)
    for name, sampler in SAMPLERS.items()
    for algorithm in (None, *(a for a in sampler.algorithms if a != ALGORITHMS[0]))
)


@dataclass(frozen=True, slots=True)
class Cell:
    """The worst residual of a row and a kind, without and with Karras' levels; and what ran."""

    residuals: tuple[float, ...]
    ran: frozenset[str]

    def __str__(self) -> str:
        return ", ".join(f"{value:.3f}" for value in self.residuals)


def cells(checkpoint: Checkpoint, grid: Grid) -> dict[tuple[Row, Kind], Cell]:
    """Measure all rows with a checkpoint; names that run the same are measured once."""
    schedulers = Schedulers(checkpoint.base)
    known: dict[object, Cell] = {}
    found = {}
    for row in ROWS:
        for kind, runs in grid.items():
            same = (SAMPLERS[row.name], row.algorithm, kind)
            if same not in known:
                known[same] = _cell(checkpoint, schedulers, row, kind, runs)
            found[row, kind] = known[same]
    return found


def _cell(checkpoint: Checkpoint, schedulers: Schedulers, row: Row, kind: Kind, runs: Runs) -> Cell:
    residuals, ran = [], set()
    for is_karras in (False, True) if SAMPLERS[row.name].karras else (False,):
        worst = 0.0
        for steps, strength in runs:
            spec = _spec(row, kind, steps, strength, is_karras=is_karras)
            scheduler = schedulers.make(spec)
            told = ran_sampler(scheduler, spec)
            ran.add(str(told["scheduler"]).removesuffix("Scheduler"))
            if is_karras and told["use_karras_sigmas"] == "no":
                ran.add("no Karras")
            left = residual(checkpoint, kind, scheduler, steps, run_strength(spec))
            worst = max(worst, math.inf if math.isnan(left) else left)
        residuals.append(worst)
    return Cell(tuple(residuals), frozenset(ran))


def _spec(row: Row, kind: Kind, steps: int, strength: float, *, is_karras: bool) -> GenerationSpec:
    return GenerationSpec(
        model_id="any",
        kind=kind,
        prompt="",
        height=64,
        width=64,
        steps=steps,
        strength=strength,
        scheduler=row.name,
        use_karras_sigmas=is_karras,
        algorithm_type=row.algorithm,
        seed=0,
    )


def table(found: Mapping[tuple[Row, Kind], Cell]) -> list[str]:
    """Write what was measured with a checkpoint, a line per row."""
    lines = ["| scheduler | runs | text2img | img2img | inpaint |", "|---|---|---|---|---|"]
    for row in ROWS:
        of_row = [found[row, kind] for kind in Kind]
        others = frozenset().union(*(cell.ran for cell in of_row))
        runs = ", ".join(sorted(others - {row.name.removesuffix("Scheduler")})) or "itself"
        lines.append(f"| {row} | {runs} | {' | '.join(map(str, of_row))} |")
    return lines


def main() -> None:
    """Measure everything and print the page."""
    logging.set_verbosity_error()
    print(head(), end="")
    for title, checkpoint in CHECKPOINTS.items():
        print(f"\n## {title}\n", *table(cells(checkpoint, GRID)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
