"""`ObjectStore`: where files go. One contract suite holds for every implementation."""

from typing import Protocol

__all__ = ["ObjectStore"]


class ObjectStore(Protocol):
    """Files by key: `folder/name` of `[A-Za-z0-9._-]`, or with a prefix of a few folders between.

    It is never a path of a client.

    Every method raises `errors.StorageUnavailable` when the store does not answer. A text that is
    no key is a slip of ours and a ValueError, except that `get` finds nothing under it.
    """

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """Write a file whole or not at all; an existing one is replaced."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Read a file; None when there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    async def expire(self, folder: str, older_than_s: float) -> int:
        """Remove the files of a folder whose age in seconds is greater; return how many.

        Those under prefixes too.
        """
        ...

    async def url(self, key: str, base_url: str, ttl_s: float | None = None) -> str:
        """Make the link that a client reads a file by, before or after the file is there.

        Args:
            key: of a result.
            base_url: scheme, host and path prefix of this service, for files it serves itself.
            ttl_s: seconds from now until the link ends, where the store can sign that; none: as
                long as the store allows.
        """
        ...

    async def ensure_lifecycle(self) -> None:
        """Make the store itself expire temporary files if it can, should nobody call `expire`.

        Called once at the start of whoever calls `expire`. A refusal is an
        `errors.StorageUnavailable` that does no harm: `expire` does the same.
        """
        ...
