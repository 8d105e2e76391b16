"""`dreamserve usage`, `audit` and `keys` against a database in a file."""

import csv
import io

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.database import read_config, with_database, with_store
from serve_app.cli.main import app
from serve_app.database.keys import SqlKeyStore
from serve_app.jobs.rules import Feature, KeyRules
from serve_app.types import Cost, JobResult
from tests.builders import job_request

COST = Cost(row_steps=1500, device_s=2.25, stored_bytes=4000)
RESULT = JobResult(keys=("a", "b"), nsfw=(False, False), generation_time_s=9, cost=COST)


@pytest.fixture
def config(tmp_path):
    config = tmp_path / "serve.yaml"
    args = {"root_dir": str(tmp_path)}
    config.write_text(yaml.safe_dump({"applications": [{"args": args}]}))
    return config


@pytest.fixture
def run(config):
    def call(*arguments):
        wide = {"COLUMNS": "250"}
        return CliRunner().invoke(app, [*arguments, "--config", str(config)], env=wide)

    return call


@pytest.fixture
def find(config):
    def find(key_id):
        return with_database(
            read_config(config), lambda database: SqlKeyStore(database).find(key_id)
        )

    return find


def test_month_is_shown_by_the_name_of_the_key_and_as_csv(run, config):
    key_id = run("keys", "create", "laptop").output.split()[0]

    async def paint(store):
        for _ in range(2):
            await store.add(job_request(key_id=key_id), 10)
        for job in await store.claim("a", 10, 5):
            await store.succeed("a", job.id, RESULT)
        return (await store.get(job.id)).finished_at

    with_store(read_config(config), paint)
    table = run("usage").output
    assert next(line for line in table.splitlines() if "laptop" in line).split() == [
        *("│", "laptop", "│", "2", "│", "0", "│", "0", "│", "4", "│"),
        *("3,000", "│", "4.5", "│", "8,000", "│"),
    ]
    assert "tiny" in run("usage", "--by", "model").output
    (row,) = csv.DictReader(io.StringIO(run("usage", "--csv").output))
    assert (row["key_id"], row["key_name"], row["model_id"]) == (key_id, "laptop", "tiny")
    assert (row["pictures"], row["row_steps"], row["device_s"]) == ("4", "3000", "4.5")
    assert run("usage", "--month", "1999-12", "--csv").output.count("\n") == 1
    assert isinstance(run("usage", "--month", "2026-13").exception, ValueError)


def test_rules_of_a_key_are_set_shown_and_cleared(run, find):
    made = run("keys", "create", "few", "--rate", "5", "--model", "a", "--model", "b")
    key_id = made.output.split()[0]
    assert find(key_id).rules == KeyRules(requests_per_minute=5, models=("a", "b"))
    run("keys", "set", key_id, "--max-open", "2", "--feature", "inpaint", "--days", "1")
    rules = find(key_id).rules
    assert rules == KeyRules(
        requests_per_minute=5, models=("a", "b"), max_open=2, features=(Feature.INPAINT,)
    )
    assert find(key_id).expires_at is not None
    shown = yaml.safe_load(run("keys", "show", key_id).output)
    assert (shown["rules"]["max_open"], shown["state"]) == (2, "active")
    assert "models a/b" in run("keys", "list").output
    run("keys", "set", key_id, "--clear", "models", "--clear", "expires_at")
    assert find(key_id).rules == rules.model_copy(update={"models": None})
    assert find(key_id).expires_at is None
    assert isinstance(run("keys", "set", key_id, "--clear", "modls").exception, ValueError)


def test_weight_and_priority_of_a_key(run, find):
    made = run("keys", "create", "strong", "--weight", "2.5", "--max-priority", "3")
    key_id = made.output.split()[0]
    assert find(key_id).rules == KeyRules(weight=2.5, max_priority=3)
    run("keys", "set", key_id, "--weight", "4", "--clear", "max_priority")
    assert find(key_id).rules == KeyRules(weight=4.0)
    assert "weight 4.0" in run("keys", "list").output
    for bad in (("--weight", "0"), ("--max-priority", "5")):
        assert run("keys", "set", key_id, *bad).exit_code == 2


def test_key_is_rotated_and_all_of_it_is_in_the_log(run, find):
    key_id, first = run("keys", "create", "me").output.split()
    second = run("keys", "rotate", key_id, "--overlap-hours", "1").output.strip()
    assert second.startswith(find(key_id).prefix)
    assert second != first
    own = run("keys", "webhook-secret", key_id).output.strip()
    assert own.startswith("whsec_")
    assert find(key_id).signs
    assert run("keys", "webhook-secret", key_id, "--clear").output == ""
    assert not find(key_id).signs
    run("keys", "revoke", key_id)
    log = run("audit").output
    positions = [log.index(f"key.{deed}") for deed in ("revoke", "rotate", "create")]
    assert positions == sorted(positions)
    assert log.count("cli:") == 5
    assert own not in log
    assert second not in log
    assert "revoked" in run("keys", "list").output


@pytest.mark.parametrize("command", ["show", "set", "rotate", "revoke"])
def test_key_that_does_not_exist(run, command):
    told = run("keys", command, "key_nothing")
    assert (told.exit_code, "no active key" in told.output) == (1, True)


def test_storage_prefix_of_a_key(run):
    key_id = run("keys", "create", "acme", "--storage-prefix", "customers/acme").output.split()[0]
    assert "storage_prefix customers/acme" in " ".join(run("keys", "list").output.split())
    run("keys", "set", key_id, "--storage-prefix", "other")
    assert yaml.safe_load(run("keys", "show", key_id).output)["rules"]["storage_prefix"] == "other"
    assert run("keys", "set", key_id, "--storage-prefix", "../x").exit_code == 2
    run("keys", "set", key_id, "--clear", "storage_prefix")
    assert "storage_prefix" not in run("keys", "show", key_id).output


@pytest.mark.parametrize("command", ["create", "set"])
def test_every_rule_of_a_key_has_an_option(run, command):
    """One list serves both commands."""
    told = run("keys", command, "--help").output
    others = {"requests_per_minute": "rate", "models": "model", "features": "feature"}
    for name in KeyRules.model_fields:
        assert f"--{others.get(name, name).replace('_', '-')}" in told
