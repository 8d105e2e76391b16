"""What operators do is written down in the transaction that does it, by whom, on both databases."""

import pytest

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.audit import SqlAuditLog
from serve_app.database.jobs import SqlJobStore
from serve_app.database.keys import SqlKeyStore
from serve_app.database.models import SqlModelStore
from serve_app.database.operator import cancel_job, list_messages, retry_job, retry_message
from serve_app.jobs.rules import KeyRules
from serve_app.models import AddOn
from serve_app.telemetry.actor import acting_as
from tests.builders import job_request

INK = AddOn(id="ink", type="lora", source="ink.safetensors")


@pytest.fixture
async def store(empty_database_url):
    store = SqlJobStore(DatabaseConfig(url=empty_database_url))
    yield store
    await store.close()


@pytest.fixture
def log(store):
    return SqlAuditLog(store.database)


async def test_keys(store, log):
    keys = SqlKeyStore(store.database)
    with acting_as("cli:me"):
        key, secret = await keys.create("laptop", KeyRules(max_open=3))
    with acting_as("admin:10.0.0.1"):
        await keys.change(key.id, KeyRules(max_open=7), 60)
        other = await keys.rotate(key.id, 5)
        await keys.revoke(key.id)
        await keys.revoke(key.id)
    deeds = await log.deeds(10)
    assert [(deed.action, deed.actor) for deed in deeds] == [
        ("key.revoke", "admin:10.0.0.1"),
        ("key.rotate", "admin:10.0.0.1"),
        ("key.set", "admin:10.0.0.1"),
        ("key.create", "cli:me"),
    ]
    assert {deed.subject for deed in deeds} == {key.id}
    assert deeds[3].detail["rules"] == {"max_open": 3}
    assert deeds[2].detail["rules"] == {"max_open": 7}
    assert secret not in repr(deeds)
    assert other not in repr(deeds)


async def test_models(store, log):
    models = SqlModelStore(store.database)
    await models.put(INK)
    await models.advance("tiny", "v2", mark="deploy-1")
    await models.advance("tiny", "v2", mark="deploy-1")  # of the next replica: nothing is done
    assert await models.remove("ink")
    assert not await models.remove("ink")
    deeds = await log.deeds(10)
    assert [deed.action for deed in deeds] == ["model.remove", "model.reload", "model.add"]
    assert deeds[1].detail == {"generation": 1, "revision": "v2"}
    assert {deed.actor for deed in deeds} == {"service"}
    assert [deed.action for deed in await log.deeds(10, "tiny")] == ["model.reload"]
    assert len(await log.deeds(2)) == 2


async def test_jobs_and_messages(store, log):
    job = await store.add(job_request(webhook="http://x/hook"), 10)
    assert await cancel_job(store, job.id, "{}")
    assert not await cancel_job(store, job.id, "{}")
    assert await retry_job(store.database, job.id)
    assert not await retry_job(store.database, 7)
    (message,) = await list_messages(store.database, 5)
    assert await retry_message(store.database, message.id)
    actions = [deed.action for deed in await log.deeds(10)]
    assert actions == ["webhook.retry", "job.retry", "job.cancel"]


async def test_what_is_rolled_back_was_not_done(store, log):
    with pytest.raises(errors.InvalidRequest):
        await SqlKeyStore(store.database).create("a\0b")
    assert await log.deeds(10) == []
