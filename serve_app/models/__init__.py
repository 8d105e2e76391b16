"""The catalogue: which models are served, from where and how. Knows no weights and no Ray."""

from serve_app.models.catalogue import Catalogue
from serve_app.models.entry import AddOn, AddOnType, Enhancement, Entry, ModelDefaults, ModelEntry
from serve_app.models.view import CatalogueView

__all__ = [
    "AddOn",
    "AddOnType",
    "Catalogue",
    "CatalogueView",
    "Enhancement",
    "Entry",
    "ModelDefaults",
    "ModelEntry",
]
