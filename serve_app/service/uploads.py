"""`Uploads`: pictures that clients hand in, kept for jobs or put under a link. It reads none."""

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import source
from serve_app.images.source import InputPicture
from serve_app.jobs.graph import Graph
from serve_app.storage import names
from serve_app.storage.protocol import ObjectStore
from serve_app.types import ImageSource, OutputPlan

__all__ = ["Uploads"]

_MAX_PUBLISHED_BYTES = 5 * 1024**2  # API page "Crop base64 image"


class Uploads:
    """Writes inline pictures to the object store, as they are or by the graph."""

    def __init__(self, files: ObjectStore, graph: Graph, config: ImagesConfig) -> None:
        self._files = files
        self._graph = graph
        self._config = config

    async def keep(self, field: str, picture: InputPicture) -> ImageSource:
        """Keep an input picture for every run of a job: a URL as it is, inline data as a file.

        Raises:
            errors.InvalidImage: neither a URL nor base64, or too large.
        """
        parsed = await source.read(field, picture, self._config.max_bytes)
        if isinstance(parsed, str):
            return ImageSource(field=field, url=parsed)
        key = names.reserve_input()
        await self._files.put(key, parsed, "application/octet-stream")
        return ImageSource(field=field, stored_key=key)

    async def publish(self, field: str, picture: InputPicture, *, crop: bool) -> str:
        """Encode an inline picture anew, as a temporary result; returns its key.

        crop: keep only the square in the middle.

        Raises:
            errors.InvalidImage: no inline picture, broken, or too large.
            errors.DreamserveError: the graph could not do it.
        """
        max_bytes = min(self._config.max_bytes, _MAX_PUBLISHED_BYTES)
        data = await source.read(field, picture, max_bytes)
        if isinstance(data, str):
            raise errors.InvalidImage(field, f"The {field} field must be base64 or a data URI.")
        (key,) = names.reserve(1, temp=True)
        await self._graph.publish(field, data, OutputPlan(keys=(key,), temp=True), crop=crop)
        return key
