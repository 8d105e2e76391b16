"""Where what ran differs from what was asked, as `meta` tells it."""

from pydantic import JsonValue

from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.samplers.names import will_run
from serve_app.pipelines.specs import ran_effects, ran_size
from serve_app.pipelines.work import Painting
from serve_app.types import GenerationSpec

__all__ = ["ran"]


def ran(
    asked: GenerationSpec,
    spec: GenerationSpec,
    painting: Painting,
    canvas: Canvas | None,
    checkpoint: Checkpoint,
) -> dict[str, JsonValue]:
    """Return what became of a job.

    asked: as it came. spec: with everything resolved. painting: of one sample. canvas: the first.
    """
    return _resolved(asked, spec) | _painted(spec, painting, canvas, checkpoint)


def _painted(
    spec: GenerationSpec, painting: Painting, canvas: Canvas | None, checkpoint: Checkpoint
) -> dict[str, JsonValue]:
    """Return where what ran differs from what was asked."""
    ran: dict[str, JsonValue] = {}
    told = will_run(spec) | {"scheduler": spec.scheduler}
    ran |= {key: value for key, value in painting.sampler.items() if value != told[key]}
    if spec.clip_skip > checkpoint.max_clip_skip:
        ran["clip_skip"] = checkpoint.max_clip_skip
    if spec.tomesd and not checkpoint.variants.can_merge:
        ran["tomesd"] = "no"
    if spec.negative_prompt and not checkpoint.family.has_negative(spec.guidance_scale):
        ran["negative_prompt"] = ""
    if canvas is not None:
        ran |= _ran_crop(spec, canvas)
    return ran | ran_effects(spec, checkpoint.native_px, checkpoint.multiple_px)


def _ran_crop(spec: GenerationSpec, canvas: Canvas) -> dict[str, JsonValue]:
    """Return which part was painted, the first of several, at what size, and by which shades."""
    ran: dict[str, JsonValue] = {"mask_mode": "soft"} if canvas.is_soft else {}
    if canvas.box != (0, 0, spec.width, spec.height):
        ran["crop"] = list(canvas.box)
    return ran if canvas.painted is None else ran | {"painted": list(canvas.size)}


def _resolved(asked: GenerationSpec, spec: GenerationSpec) -> dict[str, JsonValue]:
    """Return what became of the prompt and of a size that was left open."""
    rewritten: dict[str, JsonValue] = {} if spec.prompt == asked.prompt else {"prompt": spec.prompt}
    return rewritten | ran_size(asked, spec)
