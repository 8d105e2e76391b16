"""Small rules on a `GenerationSpec` that every painter keeps. No torch."""

from serve_app import errors
from serve_app.types import GenerationSpec, Kind

__all__ = ["check_kind", "run_strength", "sample_specs"]


def check_kind(spec: GenerationSpec, kinds: tuple[Kind, ...]) -> None:
    """Refuse a kind that the model does not do.

    Raises:
        errors.InvalidRequest: the kind is not among `kinds`.
    """
    if spec.kind not in kinds:
        raise errors.InvalidRequest("model_id", f"The model does not do {spec.kind.value}")


def sample_specs(spec: GenerationSpec) -> list[GenerationSpec]:
    """Split a job into its samples; sample i has seed + i."""
    return [
        spec.model_copy(update={"samples": 1, "seed": (spec.seed + index) % 2**32})
        for index in range(spec.samples)
    ]


def run_strength(spec: GenerationSpec) -> float:
    """Give the strength to run with: at least one step's worth; text2img is all noise."""
    if spec.kind is Kind.TEXT2IMG:
        return 1.0
    one_step = (1 + 1e-6) / spec.steps  # pipelines round steps * strength down
    return min(1.0, max(spec.strength, one_step))
