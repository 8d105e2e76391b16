"""The use cases behind the HTTP API. Knows no HTTP, no Ray, no torch, no SQL."""

from serve_app.service.callers import OPEN_KEY_ID
from serve_app.service.generation import GenerationService, Stores

__all__ = ["OPEN_KEY_ID", "GenerationService", "Stores"]
