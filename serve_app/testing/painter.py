"""`load_painter`: a painter of one model without a replica around it, for tests and benchmarks."""

from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.weights.resolve import resolve
from serve_app.pipelines.addons.lookup import AddOns, FindAddOn
from serve_app.pipelines.protocol import Painter
from serve_app.replica.factory import painter_factory

__all__ = ["load_painter"]


def load_painter(
    entry: ModelEntry,
    config: EngineConfig,
    find: FindAddOn = lambda _id, _type: None,
    catalogue: CatalogueConfig | None = None,
) -> Painter:
    """Get a model's weights, load them and start its engine. Blocks, perhaps for minutes.

    find: looks up what requests name as `loras`, `vae` and `embeddings`.
    catalogue: how weights are had; none: from local files.

    Raises:
        errors.WeightsRefused: the files cannot be had or may not be loaded.
        errors.GenerationFailed: the weights do not paint.
        OSError: they are no checkpoint.
        ValueError: an architecture that is not served.
    """
    factory, catalogue = painter_factory(config), catalogue or CatalogueConfig()
    found = resolve(entry, catalogue) if factory.needs_files(entry) else entry
    return factory.make(found, AddOns(entry.id, find, catalogue))
