"""`dreamserve jobs` and `dreamserve webhooks` against a database in a file."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
import yaml
from typer.testing import CliRunner

from serve_app import errors
from serve_app.cli.database import read_config, with_store
from serve_app.cli.jobs import duration
from serve_app.cli.main import app
from serve_app.database.outbox import SqlOutbox
from serve_app.failure import to_failure
from serve_app.types import JobState
from tests.builders import job_request, spec


@pytest.fixture
def config(tmp_path):
    config = tmp_path / "serve.yaml"
    args = {"root_dir": str(tmp_path)}
    config.write_text(yaml.safe_dump({"applications": [{"args": args}]}))
    return config


@pytest.fixture
def run(config):
    def call(*arguments):
        wide = {"COLUMNS": "200"}
        return CliRunner().invoke(app, [*arguments, "--config", str(config)], env=wide)

    return call


@pytest.fixture
def stored(config):
    return lambda work: with_store(read_config(config), work)


def accept(**changes):
    return lambda store: store.add(job_request(**changes), 100)


async def fail_all(store):
    for job in await store.claim("a", 10, 100):
        await store.fail("a", job.id, to_failure(errors.OutOfMemory()), "{}")


def test_jobs_are_listed_shown_and_run_again(run, stored):
    job = stored(accept(spec=spec(prompt="a secret wish"), echo={"prompt": "a secret wish"}))
    stored(fail_all)
    listed = run("jobs", "list", "--state", "failed").output
    assert str(job.id) in listed
    assert "out_of_memory" in listed
    shown = run("jobs", "show", str(job.id))
    assert "secret" not in shown.output
    values = yaml.safe_load(shown.output)
    assert (values["state"], values["failure"]["code"]) == ("failed", "out_of_memory")
    times = [datetime.fromisoformat(values[name]) for name in ("created_at", "finished_at")]
    assert all(abs((datetime.now(UTC) - time).total_seconds()) < 600 for time in times)
    assert "secret" in run("jobs", "show", "--prompts", str(job.id)).output
    assert run("jobs", "retry", str(job.id)).exit_code == 0
    assert stored(lambda store: store.get(job.id)).state is JobState.QUEUED


def test_cancelled_job_tells_its_webhook(run, stored):
    job = stored(accept(webhook="http://x/hook", track_id=7))
    assert run("jobs", "cancel", str(job.id)).exit_code == 0
    assert stored(lambda store: store.get(job.id)).state is JobState.CANCELLED
    (message,) = stored(lambda store: SqlOutbox(store.database).claim("s", 10, 5))
    body = json.loads(message.body)
    assert (body["id"], body["reason"], body["track_id"]) == (job.id, "cancelled", 7)
    assert run("jobs", "cancel", str(job.id)).exit_code == 1


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
def test_job_that_does_not_exist(run, command):
    told = run("jobs", command, "12345")
    assert (told.exit_code, "12345" in told.output) == (1, True)


def test_messages_show_no_secret_of_their_urls_and_are_sent_again(run, stored):
    stored(accept(webhook="http://user:pass@hooks.example/token?key=s"))
    stored(fail_all)
    listed = run("webhooks", "list").output
    assert "hooks.example" in listed
    assert not {"token", "pass", "key=s"} & set(listed.replace("/", " ").split())
    (message,) = stored(lambda store: SqlOutbox(store.database).claim("s", 0.01, 5))
    asyncio.run(asyncio.sleep(0.05))
    assert run("webhooks", "retry", message.id).exit_code == 0
    assert run("webhooks", "retry", "msg_nothing").exit_code == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (2e5, "2 d")],
)
def test_duration_is_in_the_largest_unit_that_fits_twice(seconds, text):
    assert duration(seconds) == text
