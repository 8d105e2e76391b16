"""Programs and tables of different versions: who changes tables, who refuses, who works on."""

import sqlite3

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from serve_app.database.backup import backup, problems
from serve_app.database.keys import SqlKeyStore
from serve_app.database.migrate import Fitness, prepare, require, status, upgrade
from serve_app.database.models import SqlModelStore
from serve_app.database.outbox import SqlOutbox
from serve_app.jobs.protocol import Idempotency
from serve_app.jobs.rules import KeyRules
from serve_app.models import AddOn
from serve_app.types import JobResult
from serve_app.webhooks.protocol import DeliveryState
from tests.builders import job_request
from tests.unit.database.test_migrate import downgrade

RESULT = JobResult(keys=("a",), nsfw=(False,), generation_time_s=1.0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def config(request, tmp_path):
    if request.param == "sqlite":
        return DatabaseConfig(url=f"sqlite:///{tmp_path}/new/jobs.db")
    return DatabaseConfig(url=request.getfixturevalue("postgres_url"))


def is_sqlite(config):
    return config.url.get_secret_value().startswith("sqlite")


def engine(config):
    plain = make_url(config.url.get_secret_value())
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[plain.drivername]
    return create_engine(plain.set(drivername=driver), poolclass=NullPool)


def execute(config, *statements):
    with engine(config).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def make_older(config):
    upgrade(config)
    with engine(config).begin() as connection:
        downgrade(connection, "0005")


def make_newer(config, oldest):
    """What the next version may do: add a column, a table, and say who may go on."""
    upgrade(config)
    execute(
        config,
        "ALTER TABLE jobs ADD COLUMN next_thing TEXT",
        "ALTER TABLE api_keys ADD COLUMN next_number INTEGER NOT NULL DEFAULT 7",
        "ALTER TABLE outbox ADD COLUMN next_thing TEXT",
        "CREATE TABLE next_table (id INTEGER PRIMARY KEY)",
        "CREATE INDEX ix_next ON jobs (next_thing)",
        "UPDATE alembic_version SET version_num = '9999'",
        f"UPDATE schema_programs SET oldest = '{oldest}'",
    )


def test_status_changes_nothing(config, tmp_path):
    assert status(config).fitness is Fitness.EMPTY
    assert not (tmp_path / "new").exists()
    make_older(config)
    for _ in range(2):
        assert (status(config).version, status(config).fitness) == ("0005", Fitness.OLDER)


def test_service_upgrades_a_file_of_its_own_and_no_server(config):
    if is_sqlite(config):
        prepare(config)
        assert status(config).fitness is Fitness.CURRENT
        return
    with pytest.raises(errors.JobStoreUnavailable, match="run `dreamserve db upgrade`"):
        prepare(config)
    make_older(config)
    with pytest.raises(errors.JobStoreUnavailable, match="older than this program"):
        prepare(config)
    assert status(config).fitness is Fitness.OLDER


def test_setting_says_who_upgrades(config):
    make_older(config)
    with pytest.raises(errors.JobStoreUnavailable, match="run `dreamserve db upgrade`"):
        prepare(config.model_copy(update={"auto_upgrade": False}))
    prepare(config.model_copy(update={"auto_upgrade": True}))
    assert status(config).fitness is Fitness.CURRENT


def test_command_makes_a_file_but_upgrades_nothing(config):
    if is_sqlite(config):
        require(config)
        assert status(config).fitness is Fitness.CURRENT
    make_older(config)
    with pytest.raises(errors.JobStoreUnavailable, match="run `dreamserve db upgrade`"):
        require(config.model_copy(update={"auto_upgrade": True}))
    assert status(config).fitness is Fitness.OLDER


def test_tables_that_do_not_suit_this_program_are_refused_and_stay(config):
    make_newer(config, oldest="9998")
    for use in (prepare, require, upgrade):
        with pytest.raises(errors.JobStoreUnavailable, match="too new for this program"):
            use(config)
    assert (status(config).version, status(config).fitness) == ("9999", Fitness.UNFIT)
    assert problems(config) == [status(config).advice]


def test_tables_of_a_version_that_says_nothing_are_refused(config):
    make_older(config)
    execute(config, "UPDATE alembic_version SET version_num = '9999'")
    assert status(config).fitness is Fitness.UNFIT


async def test_this_program_works_on_the_tables_of_the_next_one(config):
    """A rollback, or a deploy half way: tables are new, the program is not."""
    make_newer(config, oldest=status(config).wanted)
    assert status(config).fitness is Fitness.NEWER
    require(config)
    assert problems(config) == []
    store = await open_job_store(config)
    keys, outbox, models = (
        kind(store.database) for kind in (SqlKeyStore, SqlOutbox, SqlModelStore)
    )
    key, secret = await keys.create("me")
    assert await keys.verify(secret) == key.id
    assert [one.id for one in await keys.list_keys()] == [key.id]
    named = Idempotency("order", "digest")
    job = await store.add(job_request(webhook="http://x/"), 10, KeyRules(max_open=5), named)
    assert await store.add(job_request(), 10, KeyRules(max_open=5), named) == job
    (claimed,) = await store.claim("a", 10, 5)
    assert await store.renew("a", 10, {job.id: 0.5}) == {job.id}
    await store.release("a", [job.id])
    (claimed,) = await store.claim("a", 10, 5)
    assert claimed.attempts == 2
    assert await store.succeed("a", job.id, RESULT, "{}")
    assert (await store.get(job.id)).result == RESULT
    (message,) = await outbox.claim("b", 10, 5)
    assert await outbox.settle("b", message.id, DeliveryState.DELIVERED)
    await models.put(AddOn(id="ink", type="lora", source="ink.safetensors"))
    assert (await models.advance("tiny")).weights_version == 1
    assert [entry.id for entry in await models.entries()] == ["ink"]
    assert len(await store.expire(-1)) == 1
    assert await outbox.expire(-1) == 1
    await store.close()
    assert status(config).version == "9999"


async def test_backup_is_whole_while_others_write(tmp_path):
    config = DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db")
    store = await open_job_store(config)
    job = await store.add(job_request(), 10)
    backup(config, tmp_path / "copy.db")
    await store.add(job_request(), 10)
    await store.close()
    copy = DatabaseConfig(url=f"sqlite:///{tmp_path}/copy.db")
    assert problems(copy) == []
    copied = await open_job_store(copy)
    assert [one.id for one in await copied.claim("a", 10, 10)] == [job.id]
    await copied.close()
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.glob(".*")} == set()


def test_backup_overwrites_nothing_and_needs_a_database(tmp_path):
    config = DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db")
    with pytest.raises(FileNotFoundError):
        backup(config, tmp_path / "copy.db")
    upgrade(config)
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        backup(config, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"
    with pytest.raises(ValueError, match="pg_dump"):
        backup(DatabaseConfig(url="postgresql://a/b"), tmp_path / "other.db")


def test_check_names_what_is_missing(config):
    upgrade(config)
    assert problems(config) == []
    execute(config, "DROP TABLE model_turns", "ALTER TABLE outbox DROP COLUMN body")
    assert problems(config) == [
        "the table model_turns is missing",
        "the column outbox.body is missing",
    ]


def test_check_finds_a_damaged_page(tmp_path):
    config = DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db")
    upgrade(config)
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        for number in range(2000):
            row = (f"k{number}", "n" * 50, "p", f"h{number}", 1.0)
            connection.execute(
                "INSERT INTO api_keys (id, name, prefix, hash, created_at) VALUES (?,?,?,?,?)", row
            )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray((tmp_path / "jobs.db").read_bytes())
    data[-20_000:-12_000] = b"\xff" * 8000
    (tmp_path / "jobs.db").write_bytes(data)
    found = problems(config)
    assert found
    assert all("damaged" in line for line in found)
