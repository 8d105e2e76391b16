"""The catalogue: which models are served, from where and how. Knows no weights and no Ray."""

from serve_app.models.catalogue import Catalogue
from serve_app.models.entry import Enhancement, ModelDefaults, ModelEntry

__all__ = ["Catalogue", "Enhancement", "ModelDefaults", "ModelEntry"]
