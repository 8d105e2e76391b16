"""Settings: defaults, files, environment, redaction."""

import pickle
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from serve_app.config import AppConfig, ServingConfig

ROOT = Path(__file__).parents[3]
SECTIONS = {
    name: field.annotation
    for name, field in AppConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}


def test_environment_wins_over_the_file(monkeypatch):
    monkeypatch.setenv("DREAMSERVE_JOBS__HOLD_S", "3.5")
    config = AppConfig.model_validate({"jobs": {"hold_s": 9, "max_open": 7}})
    assert (config.jobs.hold_s, config.jobs.max_open) == (3.5, 7)


def test_environment_reaches_a_deeper_field(monkeypatch):
    monkeypatch.setenv("DREAMSERVE_SERVING__INGRESS__MAX_REPLICAS", "3")
    assert AppConfig().serving.ingress.max_replicas == 3


@pytest.mark.parametrize(
    ("variables", "said", "wanted"),
    [
        ({}, {}, None),
        ({"HF_HOME": "/home/hf"}, {}, "/home/hf/hub"),
        ({"HF_HOME": "/home/hf", "HF_HUB_CACHE": "/cache"}, {}, "/cache"),
        ({"HF_HOME": ""}, {}, None),
        ({"HF_HOME": "/home/hf"}, {"hub_cache": "mine"}, "/root-dir/mine"),
    ],
    ids=["none", "home", "cache", "empty", "setting"],
)
def test_hub_cache_is_the_one_of_other_programs(monkeypatch, variables, said, wanted):
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = AppConfig.model_validate({"root_dir": "/root-dir", "catalogue": said})
    assert config.catalogue.hub_cache == (None if wanted is None else Path(wanted))


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_unknown_keys_are_refused(section):
    with pytest.raises(ValidationError, match="Extra inputs"):
        AppConfig.model_validate({section: {"no_such_setting": 1}})


def test_environment_variable_of_no_setting_is_refused(monkeypatch):
    monkeypatch.setenv("DREAMSERVE_JOBBS__HOLD_S", "3")
    with pytest.raises(ValueError, match="DREAMSERVE_JOBBS__HOLD_S"):
        AppConfig()


@pytest.mark.parametrize(
    "settings",
    [
        {"storage": {"backend": "s3", "s3": {"bucket": "abc", "secret_access_key": "CANARY"}}},
        {"database": {"url": ["postgresql://u:CANARY@h/db"]}},
        {"webhooks": {"secrets": [["CANARY"]]}},
    ],
    ids=["s3", "database", "webhooks"],
)
def test_refused_settings_keep_their_secrets(settings):
    with pytest.raises(ValidationError) as refusal:
        AppConfig.model_validate(settings)
    assert "CANARY" not in str(refusal.value)


def test_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        AppConfig().jobs.hold_s = 1


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_every_field_has_a_description(section):
    fields = SECTIONS[section].model_fields
    bare = [name for name, field in fields.items() if not field.description]
    nested = [n for n in bare if isinstance(fields[n].default, BaseModel)]
    assert set(bare) == set(nested)


def test_redacted_shows_no_secret():
    config = AppConfig.model_validate({"database": {"url": "postgresql://u:hunter2@db/x"}})
    assert "hunter2" not in str(config.redacted())
    assert "hunter2" not in repr(config)


def test_configuration_pickles_whole():
    config = AppConfig.model_validate({"database": {"url": "postgresql://u:p@db/x"}})
    assert pickle.loads(pickle.dumps(config)) == config


def test_relative_paths_start_at_the_root_folder(tmp_path):
    config = AppConfig.model_validate({"root_dir": tmp_path, "data_dir": "d"})
    assert config.data_dir == tmp_path / "d"
    assert config.catalogue.path == tmp_path / "configs/models"
    assert config.database.url.get_secret_value() == f"sqlite:///{tmp_path}/d/dreamserve.db"


def test_models_of_hints_start_at_the_root_folder_too(tmp_path):
    hints = {"depth": "midas", "normal": "/models/midas", "pose": "vit", "people": "detr"}
    config = AppConfig.model_validate({"root_dir": tmp_path, "hints": hints}).hints
    named = {name: tmp_path / folder for name, folder in hints.items()}
    assert config.paths == named
    assert (config.normal, config.lineart) == (Path("/models/midas"), None)


@pytest.mark.parametrize("alone", ["pose", "people"])
def test_poses_need_both_of_their_models(alone):
    with pytest.raises(ValueError, match="set pose and people together"):
        AppConfig.model_validate({"hints": {alone: "folder"}})


@pytest.mark.parametrize("name", ["dev.yaml", "prod.yaml"])
def test_shipped_configuration_is_valid(name):
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "configs" / name).read_text()))
    AppConfig.model_validate({"root_dir": ROOT, **schema.applications[0].args})


@pytest.mark.parametrize("deployment", ServingConfig.model_fields)
def test_one_option_of_a_deployment_leaves_the_others_as_they_are(deployment):
    named = AppConfig.model_validate({"serving": {deployment: {"health_check_timeout_s": 7}}})
    default = getattr(ServingConfig(), deployment)
    assert getattr(named.serving, deployment) == default.model_copy(
        update={"health_check_timeout_s": 7}
    )


def test_one_option_from_the_environment_leaves_the_others_as_they_are(monkeypatch):
    monkeypatch.setenv("DREAMSERVE_SERVING__INGRESS__NUM_CPUS", "2")
    ingress = AppConfig.model_validate({}).serving.ingress
    assert (ingress.num_cpus, ingress.max_ongoing_requests) == (2, 512)


def test_janitor_cannot_be_scaled():
    with pytest.raises(ValidationError, match="exactly one replica"):
        AppConfig.model_validate({"serving": {"janitor": {"max_replicas": 2}}})
