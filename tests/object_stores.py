"""Every implementation of the object store behind one fixture.

Listed in `pytest_plugins` of the root conftest. `bench.advance` makes time pass without waiting.
"""

import os
import time

import pytest

from serve_app.storage.disk import DiskStore
from serve_app.storage.memory import MemoryStore

__all__ = ["DiskBench", "MemoryStoreBench", "S3Bench"]


class MemoryStoreBench:
    """The twin in memory."""

    def __init__(self):
        self.now = 1_700_000_000.0
        self.store = MemoryStore(lambda: self.now)

    async def advance(self, seconds):
        self.now += seconds


class DiskBench:
    """Files in a folder; time passes by making them older."""

    def __init__(self, folder):
        self.folder = folder
        self.store = DiskStore(folder)

    async def advance(self, seconds):
        for path in self.folder.rglob("*.*"):
            past = path.stat().st_mtime - seconds
            os.utime(path, (time.time(), past))


class S3Bench:
    """Files in a bucket; time passes by making them older."""

    def __init__(self, server):
        # boto3 is slow to import, and only few tests need it.
        from serve_app.storage.s3 import S3Store

        self._server = server
        self.store = S3Store(server.config())

    async def advance(self, seconds):
        self._server.age(seconds)


@pytest.fixture(params=["memory", "disk", "s3"])
def object_bench(request, tmp_path):
    """Each implementation in turn, empty."""
    if request.param == "s3":
        return S3Bench(request.getfixturevalue("s3_server"))
    return MemoryStoreBench() if request.param == "memory" else DiskBench(tmp_path / "files")
