"""Painting with add-ons, as a painter does it but for pixels in floating point; and stock alone."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline, SchedulerMixin

from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.work import Painting, Sample
from serve_app.types import GenerationSpec, Kind
from tests.engine.lora_files import Made

CPU = EngineConfig(device="cpu", measure_rows=False, channels_last=False, turn_ticks=2)
TOLERANCE = 1e-4  # of a value in [0, 1], float32


class Weaver:
    """A checkpoint with add-ons, which may grow, and one engine.

    source: a folder, or an entry whose files are here. canvas: of requests that have one.
    """

    def __init__(
        self, source: Path | ModelEntry, add_ons: Sequence[AddOn], config: EngineConfig = CPU
    ) -> None:
        entry = source if isinstance(source, ModelEntry) else entry_of(source)
        self.canvas: Canvas | None = None
        self.checkpoint: Checkpoint = load_checkpoint(entry, config)
        self.engine = Engine(config, self.checkpoint.variants.activate)
        self._add_ons = AddOns("random", self._find)
        self.known = list(add_ons)

    def _find(self, add_on_id: str, add_on_type: str) -> AddOn | None:
        found = (one for one in self.known if (one.id, one.type) == (add_on_id, add_on_type))
        return next(found, None)

    def request(self, spec: GenerationSpec) -> Request:
        """Do what a painter does before its engine gets a request."""
        checkpoint, named = self.checkpoint, self._add_ons.of(spec)
        spec, tokens = checkpoint.embeddings.apply(spec, named.embeddings)
        variant = checkpoint.variants.of(spec, named)
        loras = checkpoint.loras.choose(spec.loras, named.loras)
        body = Sample(
            checkpoint=checkpoint,
            spec=spec,
            canvas=None if spec.kind is Kind.TEXT2IMG else self.canvas,
            size=(spec.height, spec.width),
            scheduler=checkpoint.schedulers.make(spec),
            variant=variant,
            progress=Progress(),
            loras=loras,
            vae=checkpoint.vaes.get(named.vae),
            tokens=tokens,
        )
        return Request(body, variant=variant)

    def paint(self, *specs: GenerationSpec) -> list[torch.Tensor]:
        """Paint all specs together; pictures are (3, H, W) in [0, 1]."""
        futures = [self.engine.submit(self.request(spec)) for spec in specs]
        results = [future.result(timeout=60) for future in futures]
        return [result.image for result in results if isinstance(result, Painting)]


def entry_of(source: Path, **said: object) -> ModelEntry:
    """Make the entry of a model that paints 64 x 64 pixels."""
    values = {"id": "random", "source": source, "kinds": tuple(Kind), "native_size_px": 64}
    return ModelEntry.model_validate(values | said)


def stock_scheduler(pipeline: DiffusionPipeline, name: str) -> SchedulerMixin:
    """Make a scheduler of diffusers for a pipeline's checkpoint.

    XL ships Euler's config: it says nothing of clipping and spaces timesteps evenly. DDIM would cut
    latents off at 1 and aim at other timesteps than it is called with (`docs/samplers.md`).
    """
    right = {"clip_sample": False, "timestep_spacing": "leading"} if name == "DDIMScheduler" else {}
    own: SchedulerMixin = getattr(diffusers, name).from_config(
        dict(pipeline.scheduler.config) | right
    )
    return own


def paint_stock(
    pipeline: DiffusionPipeline, spec: GenerationSpec, **changes: object
) -> torch.Tensor:
    """Let a pipeline of diffusers paint with a sampler of its own."""
    pipeline.scheduler = stock_scheduler(pipeline, spec.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {
        "prompt": spec.prompt,
        "height": spec.height,
        "width": spec.width,
        "num_inference_steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "generator": torch.Generator().manual_seed(spec.seed),
        "output_type": "pt",
    }
    return pipeline(**arguments | changes).images[0]


def changed(
    pipeline: DiffusionPipeline,
    changes: Mapping[tuple[str, str], Callable[[torch.Tensor], torch.Tensor]],
) -> DiffusionPipeline:
    """Copy a pipeline with the weights of layers, by component and name, changed."""
    copied = copy.deepcopy(pipeline)
    for (component, layer), change in changes.items():
        weight = getattr(copied, component).get_submodule(layer).weight
        weight.data = change(weight.data)
    return copied


def truth(base: DiffusionPipeline, made: Mapping[str, Made], spec: GenerationSpec) -> torch.Tensor:
    """Let stock diffusers paint with the changed weights, a DoRA's first."""
    pipeline = base
    for use in sorted(spec.loras, key=lambda use: use.id != "dora"):
        pipeline = changed(
            pipeline,
            {
                key: (
                    (lambda weight, own=own, use=use: own.decomposed(weight, use.strength))
                    if use.id == "dora"
                    else (lambda weight, own=own, use=use: weight + use.strength * own.product())
                )
                for key, own in made[use.id].items()
            },
        )
    return paint_stock(pipeline, spec)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Give the largest difference of any value."""
    return float((one - other).abs().max())
