"""Every implementation of the object store behind one fixture.

Listed in `pytest_plugins` of the root conftest. `bench.advance` makes time pass without waiting.
"""

import os
import time

import pytest

from serve_app.storage.disk import DiskStore
from serve_app.testing.storage import MemoryStore

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

    def __init__(self, server, store):
        self._server = server
        self.store = store

    async def advance(self, seconds):
        self._server.age(seconds)


@pytest.fixture(scope="session")
def _s3_store(_s3_process):
    """One client for all tests: each takes half a second to make."""
    from serve_app.storage.s3 import S3Store  # boto3 is slow to import, and few tests need it

    return S3Store(_s3_process.config())


@pytest.fixture(params=["memory", "disk", "s3"])
def object_bench(request, tmp_path):
    """Each implementation in turn, empty."""
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        return S3Bench(server, request.getfixturevalue("_s3_store"))
    return MemoryStoreBench() if request.param == "memory" else DiskBench(tmp_path / "files")
