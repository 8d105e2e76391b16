"""What half precision changes: pictures of the trained demo model, against those in float32.

Two tables: the engine in each number type, with the scores of `training.evaluate` and how far a
picture painted in company is from the same alone; and stock pipelines of diffusers with one part
in half precision at a time. Run: `python -m benchmarks.precision --help`.
"""

import argparse
import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UniPCMultistepScheduler
from torch import nn
from torch.utils._pytree import tree_map

from benchmarks.engine import Model, load, weave
from serve_app.config import EngineConfig, LoggingConfig
from serve_app.engine.engine import Engine
from serve_app.engine.lane import Call, forward
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.precision import device_of
from serve_app.pipelines.proxy import stand_in
from serve_app.telemetry import logging
from serve_app.types import GenerationSpec, Kind
from training.evaluate import score
from training.generate import Case, make_cases
from training.generate import load as load_stock

_DEMO = Path(__file__).parents[1] / "checkpoints" / "demo"
_SAMPLERS = (
    "DDIMScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)
_GUIDANCE, _STEPS = 3.0, 20
_CELL_PX = 16
_HALVES = (torch.bfloat16, torch.float16)
Pictures = Sequence[np.ndarray]  # (H, W, 3) of uint8 each


@dataclass(frozen=True, slots=True)
class Apart:
    """How far pictures are from others, grey levels. large: share of values 8 or more off."""

    mean: float
    largest: int
    large: float

    def cells(self) -> str:
        """Write the cells of a table."""
        return f"{self.mean:.3f} | {self.largest} | {self.large:.3%}"


def apart(pictures: Pictures, others: Pictures) -> Apart:
    """Compare pictures one by one."""
    levels = np.abs(np.stack(pictures).astype(int) - np.stack(others).astype(int))
    return Apart(float(levels.mean()), int(levels.max()), float((levels >= 8).mean()))


@contextlib.contextmanager
def engine_of(device: str, dtype: str) -> Iterator[tuple[Checkpoint, Engine]]:
    """Load the demo model in a number type."""
    config = EngineConfig(device=device, measure_rows=False)
    checkpoint = load(Model(_DEMO, (256,), (_STEPS, _STEPS)), config, dtype)
    with contextlib.closing(Engine(config, checkpoint.variants.activate)) as engine:
        yield checkpoint, engine


def specs_of(cases: Sequence[Case], steps: int = _STEPS) -> list[GenerationSpec]:
    """Ask for the pictures of cases, with the samplers in turn."""
    return [
        GenerationSpec(
            model_id="demo",
            kind=Kind.TEXT2IMG,
            prompt=case.prompt,
            height=len(case.picture),
            width=len(case.picture),
            steps=steps,
            guidance_scale=_GUIDANCE,
            scheduler=_SAMPLERS[number % len(_SAMPLERS)],
            seed=case.seed,
        )
        for number, case in enumerate(cases)
    ]


def painted(checkpoint: Checkpoint, engine: Engine, specs: Sequence[GenerationSpec]) -> Pictures:
    """Paint all side by side."""
    made = weave(checkpoint, engine, specs)
    return [
        (one.image.permute(1, 2, 0).float().cpu().numpy() * 255).round().astype(np.uint8)
        for one in made
    ]


@torch.inference_mode()
def forward_apart(checkpoint: Checkpoint, rows: int = 16) -> float:
    """Return how far a row of a forward in company is from the same alone, relative to the most."""
    unet = checkpoint.base.unet
    generator = torch.Generator().manual_seed(1)
    side = 256 // _CELL_PX
    width = unet.config.cross_attention_dim
    shapes = {"sample": (rows, 4, side, side), "encoder_hidden_states": (rows, 77, width)}
    given: dict[str, object] = {
        name: torch.randn(shape, generator=generator).to(unet.device, unet.dtype)
        for name, shape in shapes.items()
    }
    given |= {"timestep": torch.full((rows,), 500.0), "return_dict": False}
    alone = {
        name: value[:1] if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
    }
    found = [
        forward([Call(checkpoint.denoiser, arguments, count, 4 * side * side)], rows)[0]
        for arguments, count in ((given, rows), (alone, 1))
    ]
    together, single = (one[0][0].float() for one in found if isinstance(one, tuple))
    return float((together - single).abs().max() / single.abs().max())


def engines(cases: Sequence[Case], device: str, steps: int) -> Iterator[str]:
    """Write the table of the engine in each number type."""
    yield (
        "| engine | mean | largest | 8 or more off | colour | shape | background | "
        "alone: mean | largest | 8 or more off | one forward, relative |"
    )
    yield "|---|" + "---|" * 10
    specs, truth = specs_of(cases, steps), None
    for dtype in ("float32", "bfloat16", "float16"):
        with engine_of(device, dtype) as (checkpoint, engine):
            together = painted(checkpoint, engine, specs)
            alone = [painted(checkpoint, engine, [spec])[0] for spec in specs]
            one = forward_apart(checkpoint)
        truth = truth or together
        scores = score(cases, together, regional=False)
        shares = f"{scores.colour:.3f} | {scores.shape:.3f} | {scores.background:.3f}"
        off = apart(together, truth).cells()
        yield f"| {dtype} | {off} | {shares} | {apart(together, alone).cells()} | {one:.1e} |"


def parts(cases: Sequence[Case], steps: int) -> Iterator[str]:
    """Write the table of stock pipelines with parts of them in half precision."""
    columns = "mean | largest | 8 or more off"
    yield f"| in half precision | bfloat16: {columns} | float16: {columns} |"
    yield "|---|" + "---|" * 6
    plain = load_stock(_DEMO)
    truth = _stock(plain, cases, steps)
    for name, change in _CHANGES.items():
        cells = []
        for dtype in _HALVES:
            changed = StableDiffusionPipeline(
                **plain.components | change(plain, dtype), requires_safety_checker=False
            )
            cells.append(apart(_stock(changed, cases, steps), truth).cells())
        yield f"| {name} | {' | '.join(cells)} |"
    rounded = [apart(_stock(plain, cases, steps, dtype), truth).cells() for dtype in _HALVES]
    yield f"| latents between steps | {' | '.join(rounded)} |"


@torch.inference_mode()
def _stock(
    pipeline: StableDiffusionPipeline,
    cases: Sequence[Case],
    steps: int,
    state: torch.dtype = torch.float32,
) -> Pictures:
    """Paint with UniPC of diffusers. state: to which latents are rounded after each step."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)

    def after_step(
        _pipeline: object, _step: int, _timestep: object, held: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        latents = held["latents"]
        return {"latents": latents.to(state).to(latents.dtype)}

    found = [
        pipeline(
            prompt=case.prompt,
            height=len(case.picture),
            width=len(case.picture),
            num_inference_steps=steps,
            guidance_scale=_GUIDANCE,
            generator=torch.Generator().manual_seed(case.seed),
            output_type="np",
            callback_on_step_end=after_step,
        ).images[0]
        for case in cases
    ]
    return [(one * 255).round().astype(np.uint8) for one in found]


Change = Callable[[StableDiffusionPipeline, torch.dtype], Mapping[str, object]]


def _text(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> Mapping[str, object]:
    return {"text_encoder": _lowered(pipeline.text_encoder, dtype)}


def _unet(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> Mapping[str, object]:
    return {"unet": _lowered(pipeline.unet, dtype)}


def _unet_but_norms(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> Mapping[str, object]:
    return {"unet": _lowered(pipeline.unet, dtype, norms=True)}


def _vae(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> Mapping[str, object]:
    vae = copy.deepcopy(pipeline.vae)
    vae.decoder = _lowered(vae.decoder, dtype)
    return {"vae": vae}


def _all(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> Mapping[str, object]:
    lowered = {"text_encoder": pipeline.text_encoder, "vae": pipeline.vae, "unet": pipeline.unet}
    return {name: copy.deepcopy(module).to(dtype) for name, module in lowered.items()}


_CHANGES: Mapping[str, Change] = {
    "text encoder": _text,
    "UNet": _unet,
    "UNet but for its norms": _unet_but_norms,
    "VAE": _vae,
    "all": _all,
}


def _lowered(module: nn.Module, dtype: torch.dtype, *, norms: bool = False) -> nn.Module:
    """Make a module in half precision that takes and gives float32. norms: but for these."""
    lower = copy.deepcopy(module).to(dtype)
    for layer in lower.modules():
        if norms and isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            layer.float().__dict__["forward"] = _in_float(layer)

    def run(*args: object, **kwargs: object) -> object:
        given = tree_map(lambda value: _cast(value, dtype), (args, kwargs))
        return tree_map(lambda value: _cast(value, torch.float32), lower(*given[0], **given[1]))

    return stand_in(module, run)


def _in_float(norm: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    own = type(norm).forward

    def run(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = own(norm, x.float())
        return found.to(x.dtype)

    return run


def _cast(value: object, dtype: torch.dtype) -> object:
    is_number = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(dtype) if is_number and isinstance(value, torch.Tensor) else value


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--cases", type=int, default=32, help="pictures")
    parser.add_argument("--steps", type=int, default=_STEPS)
    parser.add_argument("--device", default="auto", help="of the engine")
    tables_of = ("engines", "parts")
    parser.add_argument("--tables", nargs="+", choices=tables_of, default=tables_of)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    cases = make_cases(options.cases, 1)
    device = str(device_of(options.device))
    tables = {
        "parts": parts(cases, options.steps),
        "engines": engines(cases, device, options.steps),
    }
    for name in options.tables:
        for line in tables[name]:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
