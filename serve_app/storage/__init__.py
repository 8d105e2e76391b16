"""Files of results and inputs: stores on disk, on S3 and in memory, and the names in them."""

from pathlib import Path

from serve_app.config import StorageConfig
from serve_app.storage.disk import DiskStore
from serve_app.storage.protocol import ObjectStore
from serve_app.storage.uploader import Uploader

__all__ = ["ObjectStore", "Uploader", "open_store"]


def open_store(config: StorageConfig, data_dir: Path) -> ObjectStore:
    """Open the configured store; the disk store keeps its files under `data_dir`/files."""
    if config.backend == "s3":
        # boto3 costs memory in every replica, so only those with a bucket import it.
        from serve_app.storage.s3 import S3Store  # noqa: PLC0415

        return S3Store(config)
    return DiskStore(data_dir / "files")
