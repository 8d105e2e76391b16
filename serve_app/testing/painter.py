"""`load_painter`: a painter of one model without a replica around it, for tests and benchmarks."""

from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.weights.resolve import resolve
from serve_app.pipelines.addons.lookup import AddOns, FindAddOn
from serve_app.pipelines.protocol import Painter
from serve_app.replica.weights import make_painter

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
    if config.painter == "fake":
        return make_painter(entry, config)
    catalogue = catalogue or CatalogueConfig()
    found = resolve(entry, catalogue)
    return make_painter(found, config, AddOns(entry.id, find, catalogue))
