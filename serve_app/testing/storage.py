"""`MemoryStore`: the twin of the stores on disk and S3, for tests."""

import time
from collections.abc import Callable

from serve_app.storage import names

__all__ = ["MemoryStore"]


class MemoryStore:
    """Implements `storage.protocol.ObjectStore`; a clock may be handed in, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._files: dict[str, tuple[bytes, float]] = {}

    async def put(self, key: str, data: bytes, media_type: str) -> None:  # noqa: ARG002
        """Write a file; see the protocol."""
        names.check(key)
        self._files[key] = (bytes(data), self._clock())

    async def get(self, key: str) -> bytes | None:
        """Read a file; see the protocol."""
        data, _ = self._files.get(key, (None, 0.0))
        return data

    async def delete(self, key: str) -> None:
        """Remove a file; see the protocol."""
        names.check(key)
        self._files.pop(key, None)

    async def expire(self, folder: str, older_than_s: float) -> int:
        """Remove old files of a folder; see the protocol."""
        names.check(f"{folder}/any")
        end = self._clock() - older_than_s
        old = [
            key
            for key, (_, written_at) in self._files.items()
            if key.startswith(f"{folder}/") and written_at < end
        ]
        for key in old:
            del self._files[key]
        return len(old)

    async def url(self, key: str, base_url: str, ttl_s: float | None = None) -> str:  # noqa: ARG002
        """Link to a file under `/files/`; see the protocol."""
        names.check(key)
        return f"{base_url.rstrip('/')}/files/{key}"

    async def ensure_lifecycle(self) -> None:
        """Do nothing; see the protocol. Only `expire` ends files here."""
