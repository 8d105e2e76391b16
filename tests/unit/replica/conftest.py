"""A model store, files in memory, and residents over both."""

import asyncio

import pytest

from serve_app.config import ReloadConfig
from serve_app.replica.resident import Resident
from serve_app.replica.status import ReplicaStatus
from serve_app.testing.models import MemoryModelStore
from tests.residents import MODEL, Files


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def store():
    return MemoryModelStore()


@pytest.fixture
async def make(files, store):
    made = []

    async def make(replica="a", source=files, has_revisions=True, **settings):
        config = ReloadConfig(poll_s=0.05, report_s=0.05, **settings)
        replica_status = ReplicaStatus(MODEL, replica, store, config, has_revisions=has_revisions)
        resident = Resident(MODEL, replica_status, source, config)
        made.append(resident)
        await resident.start()
        return resident

    yield make
    files.go.set()
    for resident in made:
        await asyncio.to_thread(resident.close)
