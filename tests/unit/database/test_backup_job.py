"""What the CronJob of `deploy/kubernetes` runs makes dumps that can be restored, and tidies up."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
import yaml

from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from serve_app.database.migrate import upgrade
from tests.builders import job_request

ROOT = Path(__file__).parents[3]
CRONJOB = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "backup.yaml").read_text())
(CONTAINER,) = CRONJOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]

pytestmark = pytest.mark.postgres


@pytest.fixture
def back_up(postgres_server, postgres_url, tmp_path):
    """Run the script of the job; only the folder is another one."""
    plain = {one["name"]: one["value"] for one in CONTAINER["env"] if "value" in one}
    path = f"{postgres_server.binaries}{os.pathsep}{os.environ['PATH']}"
    ours = {"PATH": path, "BACKUP_DIR": str(tmp_path), "DREAMSERVE_DATABASE__URL": postgres_url}

    def run(**changes):
        return subprocess.run(
            CONTAINER["command"] + CONTAINER["args"],
            env=plain | ours | changes,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


async def test_dump_brings_the_jobs_back_into_an_empty_database(
    back_up, postgres_server, postgres_url, tmp_path
):
    await asyncio.to_thread(upgrade, DatabaseConfig(url=postgres_url))
    store = await open_job_store(DatabaseConfig(url=postgres_url))
    job = await store.add(job_request(), max_open=9)
    await store.close()
    done = back_up()
    assert done.returncode == 0, done.stderr
    (dump,) = tmp_path.iterdir()
    assert dump.name in done.stdout
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    restored = postgres_server.url("restored")
    restore = [
        postgres_server.binaries / "pg_restore",
        "--exit-on-error",
        "--dbname",
        restored,
        dump,
    ]
    await asyncio.to_thread(subprocess.run, restore, check=True, timeout=60)
    store = await open_job_store(DatabaseConfig(url=restored))
    assert await store.get(job.id) == job
    await store.close()


def test_old_dumps_go_and_nothing_else_does(back_up, tmp_path):
    days = int(next(one["value"] for one in CONTAINER["env"] if one["name"] == "BACKUP_DAYS"))
    for name, age in (("jobs-old.dump", days + 2), ("jobs-new.dump", days - 1), ("mine", 999)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age * 86_400,) * 2)
    assert back_up().returncode == 0
    kept = {path.name for path in tmp_path.iterdir()}
    assert {"jobs-new.dump", "mine"} <= kept
    assert "jobs-old.dump" not in kept
    assert len(kept) == 3


def test_database_that_is_away_fails_the_job_and_removes_no_dump(back_up, tmp_path):
    (tmp_path / "jobs-old.dump").write_text("")
    os.utime(tmp_path / "jobs-old.dump", (0, 0))
    assert back_up(DREAMSERVE_DATABASE__URL="postgresql://127.0.0.1:9/no").returncode != 0
    assert (tmp_path / "jobs-old.dump").exists()
