"""`FileLinks`: which links to results end, whatever store they come from."""

from serve_app.config import StorageConfig
from serve_app.storage import names
from serve_app.storage.protocol import ObjectStore

__all__ = ["FileLinks"]


class FileLinks:
    """Links to results as the object store makes them."""

    def __init__(self, files: ObjectStore, config: StorageConfig) -> None:
        self._files = files
        self._temp_ttl_s = config.temp_ttl_s

    async def make(self, key: str, base_url: str) -> str:
        """Make the link to a result; one to a `temp` file ends after `storage.temp_ttl_s`.

        Raises:
            errors.StorageUnavailable: the store's credentials could not be had.
        """
        is_temp = key.startswith(f"{names.TEMP}/")
        return await self._files.url(key, base_url, self._temp_ttl_s if is_temp else None)
