"""`dreamserve models canary|promote|rollback` against a database in a file."""

import pytest
import yaml

from tests.unit.cli.test_cli_models import deployment, run

__all__ = ["deployment", "run"]  # fixtures


@pytest.fixture
def late(run, deployment, tmp_path):
    """A model of the Pool; returns what writes its entry, with changes, to a file."""
    settings = yaml.safe_load(deployment.read_text())
    settings["applications"][0]["args"]["pool"] = {"enabled": True}
    deployment.write_text(yaml.safe_dump(settings))

    def write(**changes):
        entry = {"id": "late", "source": "hot", "kinds": ["text2img"], "placement": "pool"}
        (tmp_path / "late.yaml").write_text(yaml.safe_dump({**entry, **changes}))
        return str(tmp_path / "late.yaml")

    assert run("add", write()).exit_code == 0
    return write


def source_of(run):
    return next(line for line in run("list").output.splitlines() if "late" in line)


def test_canary_is_tried_shown_and_promoted(run, late):
    begun = run("canary", "late", late(source="other"), "--share", "20", "--unchecked")
    assert begun.exit_code == 0, begun.output
    assert "late: 20 % of the calls go to the canary" in begun.output
    assert "late: 35 % of the calls" in run("canary", "late", "--share", "35").output
    shown = run("canary", "late")
    assert "35 %" in shown.output
    assert [
        line.split("│")[1].strip() for line in shown.output.splitlines() if line.count("│") == 7
    ] == ["model", "canary"]
    assert "hot" in source_of(run)
    assert run("promote", "late").exit_code == 0
    assert "other" in source_of(run)
    assert run("canary", "late").exit_code == 1


def test_canary_is_rolled_back(run, late):
    run("canary", "late", late(source="other"), "--unchecked")
    assert run("rollback", "late").exit_code == 0
    assert "hot" in source_of(run)
    ended = run("rollback", "late")
    assert (ended.exit_code, "has no canary" in ended.output) == (1, True)


def test_share_is_small_where_none_is_said(run, late):
    assert "late: 5 % of" in run("canary", "late", late(source="x"), "--unchecked").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["late"], "has no canary"),
        (["nobody", "--share", "5"], "has no canary"),
        (["hot", "FILE", "--unchecked"], "has the id of its model"),
        (["late", "FILE"], "does not exist"),
    ],
    ids=["none", "unknown", "other-id", "missing"],
)
def test_what_is_wrong_is_told(run, late, arguments, message):
    file = late(source="nowhere")
    told = run("canary", *(file if one == "FILE" else one for one in arguments))
    assert (told.exit_code, message in told.output) == (1, True), told.output


def test_model_of_a_file_is_not_promoted(run, late, tmp_path):
    file = tmp_path / "hot-new.yaml"
    file.write_text("id: hot\nsource: elsewhere\nkinds: [text2img]\nplacement: pool\n")
    assert run("canary", "hot", str(file), "--unchecked").exit_code == 0
    told = run("promote", "hot")
    assert (told.exit_code, "comes from a model file" in told.output) == (1, True)
    assert run("rollback", "hot").exit_code == 0
