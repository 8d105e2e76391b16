"""The wire: the only package with FastAPI. Turns HTTP into `Service` calls and back."""

from serve_app.api.app import create_api
from serve_app.api.protocol import Service, StoredFile

__all__ = ["Service", "StoredFile", "create_api"]
