"""The Serve config file of `dreamserve deploy`: what changes with which setting."""

import pytest
import yaml

from serve_app.config import AppConfig
from serve_app.config.serve_file import SettingsError
from serve_app.models import ModelEntry
from serve_app.models.application import ModelArgs, ServiceArgs, StageArgs
from serve_app.models.parts import in_parts
from serve_app.types import Kind

OWN = {"service", "stage-preprocess", "stage-safety", "stage-upload", "stage-pool"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    write(tmp_path, id="a")
    write(tmp_path, id="b")
    write(tmp_path, id="tail", placement="pool")
    add_on = {"type": "lora", "source": "ink.safetensors", "models": ["a"]}
    (tmp_path / "models" / "ink.yaml").write_text(yaml.safe_dump({"id": "ink", **add_on}))
    return tmp_path


def write(folder, **values):
    values = {"source": "weights", "kinds": ["text2img"], "native_size_px": 64, **values}
    (folder / "models" / f"{values['id']}.yaml").write_text(yaml.safe_dump(values))


def service(folder, **args):
    args = {"root_dir": str(folder), "catalogue": {"path": "models"}, **args}
    return {"name": "service", "import_path": "serve_app.app:build", "args": args}


def parted(folder, added=(), version="1", *, application=None, **args):
    """Each application by name."""
    first = application or service(folder, **args)
    settings = AppConfig.model_validate(first["args"])
    file = in_parts({"applications": [first]}, settings, added, version)
    return {one["name"]: one for one in file["applications"]}


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_every_stage_and_model_has_an_application_and_the_service_is_first(folder):
    parts = parted(folder)
    assert next(iter(parts)) == "service"
    assert set(parts) == OWN | {"model-a", "model-b"}


def test_no_pool_no_application_of_it(folder):
    (folder / "models" / "tail.yaml").unlink()
    assert "stage-pool" not in parted(folder)


@pytest.mark.parametrize(
    ("section", "values", "touched"),
    [
        pytest.param("jobs", {"hold_s": 5}, {"service"}, id="hold"),
        pytest.param("limits", {"max_open_per_key": 3}, {"service"}, id="limits"),
        pytest.param("webhooks", {"poll_s": 2}, {"service"}, id="webhooks"),
        pytest.param("safety", {"device": "cuda"}, {"service", "stage-safety"}, id="safety"),
        pytest.param(
            "storage",
            {"temp_ttl_s": 60},
            {"service", "stage-upload", "stage-preprocess"},
            id="ttl",
        ),
        pytest.param("pool", {"turn_s": 1}, {"service", "stage-pool"}, id="pool"),
        pytest.param(
            "engine",
            {"max_rows": 4},
            {"service", "stage-pool", "model-a", "model-b"},
            id="engine",
        ),
        pytest.param(
            "serving", {"upload": {"num_cpus": 1}}, {"service", "stage-upload"}, id="replicas"
        ),
        pytest.param("logging", {"level": "DEBUG"}, OWN | {"model-a", "model-b"}, id="logging"),
    ],
)
def test_setting_changes_only_whom_it_concerns(folder, section, values, touched):
    assert changed(parted(folder), parted(folder, **{section: values})) == touched


def test_file_of_a_model_changes_that_model_and_who_knows_all(folder):
    before = parted(folder)
    write(folder, id="a", name="renamed")
    assert changed(before, parted(folder)) == {"service", "stage-pool", "model-a"}


def test_new_add_on_changes_the_models_that_it_fits(folder):
    before = parted(folder)
    add_on = {"id": "soft", "type": "vae", "source": "v.safetensors", "models": ["b"]}
    (folder / "models" / "soft.yaml").write_text(yaml.safe_dump(add_on))
    assert changed(before, parted(folder)) == {"service", "stage-pool", "model-b"}


def test_another_version_of_the_program_changes_all(folder):
    added = [ModelEntry(id="hot", source="w", kinds=(Kind.TEXT2IMG,))]
    before, after = parted(folder, added), parted(folder, added, version="2")
    assert changed(before, after) == OWN | {"model-a", "model-b", "model-hot"}


def test_nothing_changed_makes_the_same_file(folder):
    assert parted(folder) == parted(folder)


def test_builders_can_read_their_arguments(folder):
    added = [ModelEntry(id="hot", source="w", kinds=(Kind.TEXT2IMG,))]
    parts = parted(folder, added, jobs={"hold_s": 5}, serving={"safety": {"num_cpus": 2}})
    readers = {"service": ServiceArgs, "stage": StageArgs, "model": ModelArgs}
    read = {
        name: readers[one["import_path"].partition("build_")[2]].model_validate(one["args"])
        for name, one in parts.items()
    }
    assert read["service"].config.jobs.hold_s == 5
    assert read["stage-safety"].config.serving.safety.num_cpus == 2
    assert read["model-a"].model.id == "a"
    assert read["model-hot"].model.id == "hot"


def test_applications_that_are_none_of_ours_stay_as_they_are(folder):
    strangers = [
        {"name": "mine", "import_path": "mine:app", "args": {"a": 1}},
        {"name": "model-mine", "import_path": "mine:app", "args": {"a": 1}},
        {"name": "bare", "import_path": "mine:app"},
    ]
    first = service(folder)
    settings = AppConfig.model_validate(first["args"])
    file = in_parts({"applications": [first, *strangers]}, settings, (), "1")
    assert file["applications"][-3:] == strangers
    assert len(file["applications"]) == len(parted(folder)) + 3


def test_options_and_environment_go_along(folder):
    reload = {"name": "Generator:a", "user_config": {"revision": "v2"}}
    stay = {"name": "Ingress", "max_ongoing_requests": 5}
    whole = service(folder) | {
        "deployments": [reload, stay],
        "runtime_env": {"env_vars": {"A": "b"}},
        "route_prefix": "/",
    }
    parts = parted(folder, application=whole)
    assert parts["model-a"]["deployments"] == [reload]
    assert parts["service"]["deployments"] == [stay]
    assert {str(one["runtime_env"]) for one in parts.values()} == {"{'env_vars': {'A': 'b'}}"}
    routes = {name for name, one in parts.items() if one["route_prefix"] is not None}
    assert routes == {"service"}


def test_application_of_somebody_else_is_refused_as_the_first(folder):
    other = service(folder) | {"import_path": "elsewhere:app"}
    with pytest.raises(SettingsError, match="import_path"):
        parted(folder, application=other)
