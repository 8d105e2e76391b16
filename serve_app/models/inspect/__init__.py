"""What weight files are, told by their headers alone: type, family, parts. Needs no torch."""

from serve_app.models.inspect.file import Fault, Unreadable
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.inspection import Family, FileType, Inspection, Part, Prediction

__all__ = [
    "Family",
    "Fault",
    "FileType",
    "Inspection",
    "Part",
    "Prediction",
    "Unreadable",
    "inspect",
]
