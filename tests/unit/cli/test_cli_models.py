"""`dreamserve models` against a database in a file."""

import contextlib
import json
import sqlite3

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.main import app
from tests import community_files


@pytest.fixture
def deployment(tmp_path):
    """A Serve config file with one model and an empty database."""
    args = {"root_dir": str(tmp_path), "catalogue": {"path": "models"}}
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"args": args}]}))
    (tmp_path / "models").mkdir()
    community_files.write_named(tmp_path, "lora-sd1-processors").rename(tmp_path / "w.safetensors")
    community_files.write(tmp_path / "hot" / "unet" / "x.safetensors", {"a": (3,)})
    (tmp_path / "hot" / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
    )
    (tmp_path / "models" / "hot.yaml").write_text("id: hot\nsource: hot\nkinds: [text2img]\n")
    return config


@pytest.fixture
def run(deployment):
    def call(*arguments):
        return CliRunner().invoke(app, ["models", *arguments, "--config", str(deployment)])

    return call


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        entry = {"id": "ink", "type": "lora", "source": "w.safetensors", **changes}
        (tmp_path / "entry.yaml").write_text(yaml.safe_dump(entry))
        return str(tmp_path / "entry.yaml")

    return write


def test_entry_is_added_listed_and_removed(run, write):
    assert run("add", write()).output == "ink\n"
    rows = run("list").output
    assert "run time" in next(line for line in rows.splitlines() if "ink" in line)
    assert "file" in next(line for line in rows.splitlines() if "hot" in line)
    assert run("remove", "ink").exit_code == 0
    assert run("remove", "ink").exit_code == 1
    assert "ink" not in run("list").output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "none.safetensors"}, "does not exist"),
        ({"source": "old.ckpt"}, "pickle"),
        ({"sha256": "0" * 64}, "has the sha256"),
        ({"id": "hot"}, "taken by a model file"),
        ({"models": ["nope"]}, "models that do not exist: nope"),
        ({"id": "../../etc/passwd"}, "id: must match"),
    ],
    ids=["missing", "pickle", "hash", "equal-id", "unknown-model", "path-as-id"],
)
def test_bad_entry_is_not_added(run, write, tmp_path, changes, message):
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x04.")
    result = run("add", write(**changes))
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)
    assert "ink" not in run("list").output


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sd1-unet", {}, "ink: found a UNet alone of Stable Diffusion 1, expected a LoRA"),
        ("lora-xl-kohya", {"models": ["hot"]}, "expected one for Stable Diffusion 1"),
    ],
)
def test_entry_that_is_not_what_it_says_is_not_added(run, write, tmp_path, name, changes, message):
    community_files.write_named(tmp_path, name)
    result = run("add", write(source=f"{name}.safetensors", **changes))
    assert (result.exit_code, message in result.output) == (1, True)
    assert "ink" not in run("list").output
    assert run("add", "--unchecked", write(source=f"{name}.safetensors", **changes)).exit_code == 0
    verified = run("verify", "ink")
    assert (verified.exit_code, message in verified.output) == (1, True)


def test_file_that_is_no_yaml_is_refused(run, tmp_path):
    (tmp_path / "entry.yaml").write_text("{")
    assert run("add", str(tmp_path / "entry.yaml")).exit_code == 1


def test_unchecked_entry_needs_no_weights_here(run, write):
    assert run("add", "--unchecked", write(source="/on/the/nodes.safetensors")).exit_code == 0
    assert run("verify", "ink").exit_code == 1


def test_verify_prints_a_manifest_that_can_be_added(run, write):
    run("add", write())
    manifest = yaml.safe_load(run("verify", "ink").output.partition("\n")[2])
    assert run("add", write(**manifest)).exit_code == 0
    assert run("verify").output.count("sound") == 2


def test_verify_of_an_unknown_id_fails(run):
    assert run("verify", "nope").exit_code == 1


def test_reload_is_wanted_and_told(run, tmp_path):
    hub = "id: far\nsource: {hub: acme/far}\nkinds: [text2img]\n"
    (tmp_path / "models" / "far.yaml").write_text(hub)
    assert "generation 1 is wanted" in run("reload", "far", "--revision", "v2").output
    assert "generation 2 is wanted" in run("reload", "far").output
    told = run("status", "far")
    assert (told.exit_code, "revision v2 is wanted" in told.output) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "no model has this id"),
        (["hot", "--revision", "../x"], "branch"),
        (["hot", "--revision", "v2"], "do not come from a hub"),
    ],
)
def test_reload_of_what_does_not_exist_is_refused(run, arguments, message):
    refused = run("reload", *arguments)
    assert (refused.exit_code, message in refused.output) == (1, True)
    assert "generation 0 is wanted" in run("status", "hot").output


def printed_applications(deployment):
    """What `dreamserve config` prints, which becomes the next one's base."""
    done = CliRunner().invoke(app, ["config", "--config", str(deployment)])
    deployment.write_text(done.stdout)
    return [one.get("name") for one in yaml.safe_load(done.stdout)["applications"]]


def test_model_of_its_own_is_in_the_configuration_until_it_is_removed(run, deployment, tmp_path):
    file = tmp_path / "late.yaml"
    file.write_text("id: late\nsource: hot\nkinds: [text2img]\n")
    assert "dreamserve config" in run("add", str(file)).stderr
    assert printed_applications(deployment) == [None, "model-late"]
    assert printed_applications(deployment) == [None, "model-late"]
    assert run("remove", "late").exit_code == 0
    assert printed_applications(deployment) == [None]


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    for layout in ("lora-sd1-peft", "embedding-sd1-a1111", "lora-xl-peft"):
        community_files.write_named(folder, layout)
    (folder / "odd [1].safetensors").write_text("no weights at all, but a text of some length")
    return folder


def served_sd1(tmp_path):
    source = community_files.write_named(tmp_path, "sd1")
    source.rename(tmp_path / "sd1.safetensors")
    entry = {"id": "sd1", "source": "sd1.safetensors", "kinds": ["text2img"]}
    (tmp_path / "models" / "sd1.yaml").write_text(yaml.safe_dump(entry))


def test_folder_is_scanned_and_added_once(run, downloads, tmp_path):
    served_sd1(tmp_path)
    shown = run("scan", str(downloads))
    assert "2 new, 2 refused" in shown.output
    assert "[1]" in shown.output
    assert "lora-sd1-peft" not in run("list").output
    assert "2 new, 2 refused" in run("scan", str(downloads), "--add").output
    listed = run("list").output
    assert "lora-sd1-peft" in listed
    assert "embedding-sd1-a1111" in listed
    assert "2 same, 2 refused" in run("scan", str(downloads), "--add").output
    (downloads / "lora-sd1-peft.safetensors").unlink()
    assert "1 same, 1 gone, 2 refused" in run("scan", str(downloads)).output


@pytest.mark.slow
def test_what_changed_is_loaded_anew_and_keeps_its_entry(run, downloads, tmp_path, write):
    served_sd1(tmp_path)
    model, lora = downloads / "mine.safetensors", downloads / "lora-sd1-peft.safetensors"
    small = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
    community_files.write(model, community_files.FILES["sd1"]() | small)
    assert "3 new" in run("scan", str(downloads), "--add").output
    run("add", write(id="lora-sd1-peft", source=str(lora), name="Mine"))
    community_files.write_named(downloads, "lora-sd1-kohya").rename(lora)
    community_files.write(model, community_files.FILES["sd1"](), values={"mark": 1.0})
    assert "2 changed" in run("scan", str(downloads)).output
    assert "2 changed" in run("scan", str(downloads), "--add").output
    assert "changed" not in run("scan", str(downloads)).output
    assert "generation 1 is wanted" in run("status", "mine").output
    with contextlib.closing(sqlite3.connect(tmp_path / "var" / "dreamserve.db")) as database:
        stored = dict(database.execute("SELECT id, entry FROM catalogue_entries"))
    assert json.loads(stored["lora-sd1-peft"])["name"] == "Mine"


def test_entries_of_a_folder_are_written_as_files_of_the_catalogue(run, downloads, tmp_path):
    served_sd1(tmp_path)
    assert run("scan", str(downloads), "--write", str(tmp_path / "models")).exit_code == 0
    rows = run("list").output.splitlines()
    assert "file" in next(row for row in rows if "lora-sd1-peft" in row)
    assert "2 same, 2 refused" in run("scan", str(downloads), "--add").output


def test_files_that_are_there_are_not_overwritten(run, downloads, tmp_path):
    served_sd1(tmp_path)
    mine = tmp_path / "models" / "lora-sd1-peft.yaml"
    mine.write_text("id: mine\ntype: lora\nsource: w.safetensors\n")
    shown = run("scan", str(downloads), "--write", str(tmp_path / "models"))
    assert "1 new, 3 refused" in shown.output
    assert "id: mine" in mine.read_text()


def test_written_add_ons_name_no_models_of_the_database(run, write, downloads, tmp_path):
    served_sd1(tmp_path)
    other = community_files.write_named(tmp_path, "sd1-inpainting").rename(
        tmp_path / "r.safetensors"
    )
    added = {"id": "runtime", "source": str(other), "kinds": ["text2img"]}
    (tmp_path / "entry.yaml").write_text(yaml.safe_dump(added))
    assert run("add", str(tmp_path / "entry.yaml"), "--unchecked").exit_code == 0
    run("scan", str(downloads), "--write", str(tmp_path / "models"))
    written = yaml.safe_load((tmp_path / "models" / "lora-sd1-peft.yaml").read_text())
    assert written["models"] == ["hot", "sd1"]


def test_folder_that_is_none_is_told(run, tmp_path):
    told = run("scan", str(tmp_path / "nowhere"))
    assert (told.exit_code, "is not a folder" in told.output) == (1, True)
