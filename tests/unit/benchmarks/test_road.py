"""What the benchmark of a job's road counts, and the number of statements that a job may cost."""

import asyncio
import os
from collections import Counter

import psutil
import pytest

from benchmarks.road import kinds, statements
from benchmarks.road.service import Served, Setup
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from tests.builders import job_request

# Writes what it was asked, as a stack that was met three times.
_PY_SPY = """#!/bin/sh
while [ "$1" != --output ]; do asked="$asked$1;"; shift; done
echo "$asked 3" > "$2"
"""


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        ("run (asyncio/base_events.py:1);get (serve_app/database/jobs.py:2)", "SQL"),
        ("get (serve_app/database/jobs.py:2);execute (site/sqlalchemy/engine.py:9)", "SQL"),
        ("call (serve_app/api/app.py:1);write (site/structlog/_output.py:4)", "logging"),
        ("send (uvicorn/protocols/http.py:1)", "HTTP"),
        ("assign (ray/serve/_private/router.py:1)", "Ray handle calls"),
        ("select (selectors.py:468)", "event loop and rest"),
    ],
)
def test_innermost_known_frame_names_the_work(stack, kind):
    assert kinds.kind_of(stack) == kind


@pytest.mark.parametrize(
    ("url", "database"),
    [(None, "SQLite"), ("sqlite:////a.db", "SQLite"), ("postgresql://h/a", "PostgreSQL")],
)
def test_setup_names_its_database(url, database):
    assert str(Setup("HAProxy", 2, 32, url)) == f"{database}, HAProxy, 2 ingresses"


def test_only_threads_that_hold_the_interpreter_are_sampled(tmp_path, monkeypatch):
    program = tmp_path / "py-spy"
    program.write_text(_PY_SPY)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stacks = kinds.Sampler(1, 1.0, tmp_path / "stacks.txt").stacks()
    ((asked, count),) = stacks.items()
    assert (";--gil;" in asked, count) == (True, 3)


def test_jobs_are_counted_where_they_are_kept(tmp_path):
    config = AppConfig(root_dir=tmp_path)
    config.data_dir.mkdir(parents=True)

    async def accept(count):
        jobs = await open_job_store(config.database)
        for _ in range(count):
            await jobs.add(job_request(), 9)
        await jobs.close()

    asyncio.run(accept(3))
    assert Served("http://127.0.0.1", psutil.Process(), config).num_jobs() == 3


def test_shares_add_up_and_the_largest_comes_first():
    found = kinds.shares(Counter({"a (x.py:1)": 1, "b (site/sqlalchemy/c.py:1)": 3}))
    assert list(found.items()) == [("SQL", 0.75), ("event loop and rest", 0.25)]


def test_job_costs_no_more_statements_than_the_page_says():
    counted = statements.count(None)
    numbers = {part: (len(sql), sql.count("COMMIT")) for part, sql in counted.items()}
    assert numbers == {
        "accept, with a key": (11, 1),
        "settle": (6, 1),
        "fetch": (1, 0),
        "webhook": (10, 2),
    }
