"""What a job asks of the denoiser, by the entry of its model."""

from serve_app.config import EngineConfig
from serve_app.models import CatalogueView
from serve_app.models.revision import asked_id
from serve_app.pipelines.cost import denoiser_work
from serve_app.types import GenerationSpec

__all__ = ["work_of"]


def work_of(view: CatalogueView, config: EngineConfig, spec: GenerationSpec) -> float:
    """Count what a job asks of the denoiser; its model may be gone by now."""
    if asked_id(spec.model_id) not in view.now:
        return denoiser_work(spec, spec.height, config)
    entry = view.now.revision(spec.model_id)
    return denoiser_work(spec, entry.native_size_px, config, entry.size_multiple_px)
