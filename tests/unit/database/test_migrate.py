"""The migrations build what `schema.py` says, once, whoever comes first."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database import migrate
from serve_app.database.migrate import upgrade
from serve_app.database.schema import metadata
from serve_app.jobs.number import FIRST

UPGRADE = """
import sys
from serve_app.config import DatabaseConfig
from serve_app.database.migrate import upgrade
upgrade(DatabaseConfig(url=sys.argv[1]))
"""
OLD_JOB = """
INSERT INTO jobs
    (state, model_id, key_id, request, attempts, progress, not_before, created_at, finished_at)
VALUES ('queued', 'm', 'k', '{}', 0, 0, 0, 0, :finished_at)
"""
# What the database itself says that it holds: alembic compares neither partial indexes nor
# whether ids may come back.
CATALOGUE = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE name LIKE 'ix_%' ORDER BY name",
    "postgresql": (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "AND tablename <> 'alembic_version' ORDER BY indexname"
    ),
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/folder/jobs.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def engine(url):
    upgrade(DatabaseConfig(url=url))
    return engine_of(url)


def downgrade(connection, revision):
    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def engine_of(url):
    plain = make_url(url)
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[plain.drivername]
    return create_engine(plain.set(drivername=driver), poolclass=NullPool)


def test_upgrade_builds_the_schema(engine):
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_upgrade_builds_the_same_indexes_as_the_schema(engine):
    query = text(CATALOGUE[engine.dialect.name])
    with engine.connect() as connection:
        migrated = connection.execute(query).all()
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert connection.execute(query).all() == migrated
    assert {"ix_jobs_open", "ix_outbox_open", "ix_api_keys_hash"} <= {row[0] for row in migrated}


def test_upgrade_twice_changes_nothing(url, engine):
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO api_keys (id, name, prefix, hash, created_at) VALUES "
                "('a', 'b', 'c', 'd', 1)"
            )
        )
    upgrade(DatabaseConfig(url=url))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM api_keys")) == 1
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


@pytest.mark.slow
def test_upgrade_by_three_processes_at_once_succeeds(url):
    command = [sys.executable, "-W", "error", "-c", UPGRADE, url]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert ends == [("", 0)] * 3


def test_upgrade_that_breaks_leaves_nothing(tmp_path):
    path = tmp_path / "jobs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE api_keys (mine)")  # in the way of the last table
    connection.close()
    with pytest.raises(errors.JobStoreUnavailable):
        upgrade(DatabaseConfig(url=f"sqlite:///{path}"))
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert tables.fetchall() == [("api_keys",)]
    connection.close()


def test_sqlite_file_is_in_wal_mode(tmp_path):
    upgrade(DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db"))
    connection = sqlite3.connect(tmp_path / "jobs.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_upgrade_keeps_the_ids_that_clients_know(url, engine):
    """Of a database in which ids still counted; open jobs stay in their order, before new ones."""
    with engine.begin() as connection:
        downgrade(connection, "0004")
        for finished_at in (None, 1.0, None):
            connection.execute(text(OLD_JOB), {"finished_at": finished_at})
    upgrade(DatabaseConfig(url=url))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, number FROM jobs ORDER BY id")).all()
        numbers = connection.execute(text("SELECT first, last, key FROM job_numbers")).one()
    assert [tuple(row) for row in rows] == [(1, 1), (2, 0), (3, 3)]
    assert numbers.last == numbers.first - 1 == 3 + FIRST - 1
    assert len(bytes.fromhex(numbers.key)) == 32


def test_two_databases_have_different_keys(tmp_path):
    keys = set()
    for name in ("a", "b"):
        url = f"sqlite:///{tmp_path}/{name}.db"
        upgrade(DatabaseConfig(url=url))
        with engine_of(url).connect() as connection:
            keys.add(connection.scalar(text("SELECT key FROM job_numbers")))
    assert len(keys) == 2


@pytest.mark.postgres
def test_ids_of_postgresql_are_64_bits(postgres_url):
    upgrade(DatabaseConfig(url=postgres_url))
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT setval('jobs_id_seq', 3000000000)")


def test_upgrade_without_a_server_is_unavailable_and_tells_no_password(tmp_path):
    url = f"postgresql://me:hunter2@/db?host={tmp_path}"
    with pytest.raises(errors.JobStoreUnavailable) as caught:
        upgrade(DatabaseConfig(url=url, busy_timeout_s=2))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "mysql://u:hunter2@h/d", "hunter2", "a://b:c/d"]
)
def test_upgrade_of_another_url_is_refused(url):
    with pytest.raises(errors.JobStoreUnavailable, match=r"database\.url") as caught:
        upgrade(DatabaseConfig(url=url))
    assert "hunter2" not in str(caught.value)


LOOK = """
import asyncio, sys
from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store

async def main():
    store = await open_job_store(DatabaseConfig(url=sys.argv[1]))
    await store.oldest_open_s()
    await store.close()

asyncio.run(main())
print({"alembic", "psycopg"} & set(sys.modules))
"""


def test_process_that_finds_its_tables_loads_neither_alembic_nor_another_databases_driver(tmp_path):
    url = f"sqlite:///{tmp_path}/jobs.db"
    upgrade(DatabaseConfig(url=url))
    command = [sys.executable, "-c", LOOK, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_versions_are_those_of_the_chain_of_migrations():
    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert chain[::-1] == migrate._VERSIONS
