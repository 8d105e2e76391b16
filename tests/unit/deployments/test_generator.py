"""The Generator's class by itself: no cluster, a fake painter, a database of its own."""

import asyncio
from types import SimpleNamespace

import pytest
from ray import serve

from deployments import generator
from deployments.generator import Generator
from serve_app.config import AppConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.replica.resident import Resident
from serve_app.types import Kind
from tests.builders import spec

ENTRY = ModelEntry(id="tiny", source="no", kinds=(Kind.TEXT2IMG,))


class Quiet(Generator):
    """Closed by the fixture; Python would not await the destructor."""

    def __del__(self):
        pass


@pytest.fixture
def start(tmp_path, monkeypatch):
    replica = SimpleNamespace(replica_id=SimpleNamespace(unique_id="replica"))
    monkeypatch.setattr(serve, "get_replica_context", lambda: replica)
    config = AppConfig.model_validate({"root_dir": tmp_path, "engine": {"painter": "fake"}})
    (tmp_path / "var").mkdir()

    async def start():
        made = Quiet.__new__(Quiet)  # Serve awaits the constructor too
        await made.__init__(ENTRY, Catalogue([ENTRY]), config)
        return made

    return start


async def test_health_fails_when_nobody_follows_the_catalogue_any_more(start):
    made = await start()
    try:
        assert len((await made.paint(1, spec(), None)).pictures) == 1
        await made.check_health()
        followed = made._rounds._tasks[0]
        followed.cancel()
        await asyncio.wait([followed])
        with pytest.raises(RuntimeError, match="CatalogueView"):
            await made.check_health()
    finally:
        await Generator.__del__(made)


async def test_start_that_fails_leaves_no_connection_and_no_engine(start, monkeypatch):
    opened, closed = [], []

    async def fail(resident):
        raise ValueError("no weights")

    async def open_store(config):
        opened.append(await open_job_store(config))
        return opened[0]

    open_job_store = generator.open_job_store
    monkeypatch.setattr(generator, "open_job_store", open_store)
    monkeypatch.setattr(Resident, "start", fail)
    monkeypatch.setattr(Resident, "close", lambda resident: closed.append("resident"))
    with pytest.raises(ValueError, match="no weights"):
        await start()
    assert closed == ["resident"]
    assert opened[0].database._engine.pool.checkedin() == 0
