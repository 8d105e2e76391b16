"""The Serve config file with an application per model."""

from serve_app.models import ModelEntry
from serve_app.models.application import ModelArgs, application_name, model_of, with_models
from serve_app.types import Kind

ARGS = {"root_dir": "/srv", "catalogue": {"path": "models"}, "limits": {"max_open_per_key": 3}}
MAIN = {"name": "dreamserve", "import_path": "serve_app.app:build", "args": ARGS}
FILE = {"http_options": {"port": 8000}, "applications": [MAIN]}


def model(model_id="hot", **changes):
    return ModelEntry(id=model_id, source="weights", kinds=(Kind.TEXT2IMG,), **changes)


def test_each_model_gets_an_application_after_the_service():
    file = with_models(FILE, [model(), model("b.2")])
    assert file["http_options"] == {"port": 8000}
    assert [one["name"] for one in file["applications"]] == ["dreamserve", "model-hot", "model-b.2"]
    assert file["applications"][0] == MAIN
    assert file["applications"][1]["route_prefix"] is None


def test_arguments_hold_the_entry_and_what_replicas_go_by():
    """Limits of the ingress are none of that: a change of them restarts no model."""
    args = with_models(FILE, [model(serve={"num_gpus": 1})])["applications"][1]["args"]
    assert args["config"] == {"root_dir": "/srv", "catalogue": {"path": "models"}}
    read = ModelArgs.model_validate(args)
    assert (read.model.id, read.model.serve.num_gpus) == ("hot", 1)
    assert str(read.config.catalogue.path) == "/srv/models"


def test_environment_wins_in_applications_of_models_too(monkeypatch):
    monkeypatch.setenv("DREAMSERVE_DATABASE__URL", "postgresql://db/x")
    args = with_models(FILE, [model()])["applications"][1]["args"]
    url = ModelArgs.model_validate(args).config.database.url
    assert url.get_secret_value() == "postgresql://db/x"


def test_written_again_a_file_keeps_options_and_drops_what_is_gone():
    file = with_models(FILE, [model(), model("old")])
    options = [{"name": "Generator:hot", "user_config": {"revision": "v2"}}]
    file["applications"][1]["deployments"] = options
    again = with_models(file, [model(name="renamed")])
    assert [one["name"] for one in again["applications"]] == ["dreamserve", "model-hot"]
    assert again["applications"][1]["deployments"] == options
    assert again["applications"][1]["args"]["model"]["name"] == "renamed"
    assert with_models(again, [model(name="renamed")]) == again


def test_other_applications_are_left_alone():
    other = {"name": "model-of-someone", "import_path": "elsewhere:app"}
    file = with_models({"applications": [MAIN, other]}, [])
    assert file["applications"] == [MAIN, other]


def test_application_names_tell_the_model():
    assert model_of(application_name("sd-1.5")) == "sd-1.5"
    assert model_of("dreamserve") is None
