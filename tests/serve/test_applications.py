"""Models in applications of their own, by the configuration that `serve deploy` sends.

A second service on the shared cluster, deployed as the REST API does it, with painters that need no
torch but read real files: a picture depends on the weights.
"""

import asyncio
import json

import httpx2
import numpy as np
import pytest
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema, ServeInstanceDetails
from safetensors.numpy import save_file
from typer.testing import CliRunner

from serve_app.cli.main import app as command_line
from tests.serve.conftest import ADMIN_KEY
from tests.serve.test_loss import final, progressing

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(560)]

SERVICE = "second"
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}
SMALL = {"num_cpus": 0, "health_check_period_s": 1}
STEP_S = 0.1


def write_weights(folder, value):
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    parts = {"unet": ["diffusers", "UNet2DConditionModel"]}
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    save_file({"w": np.full(3, value, np.float32)}, folder / "fresh.tmp")
    (folder / "fresh.tmp").rename(folder / "unet" / "w.safetensors")


def entry(model_id, **changes):
    values = {"id": model_id, "source": model_id, "kinds": ["text2img"], "native_size_px": 64}
    return {**values, "serve": SMALL, **changes}


class Installation:
    """Its folder, and the configuration that was deployed last."""

    def __init__(self, folder, port):
        self.folder = folder
        self.port = port
        self.log = folder / "service.log"
        self.base_url = f"http://127.0.0.1:{port}/{SERVICE}"
        self.file = folder / "serve.yaml"
        (folder / "models").mkdir()
        self.add_file("first")
        stages = ("ingress", "preprocess", "safety", "upload", "janitor")
        args = {
            "root_dir": str(folder),
            "catalogue": {"path": "models", "refresh_s": 0.2},
            "auth": {"mode": "open", "admin_key": ADMIN_KEY},
            "engine": {"painter": "fake", "fake_step_s": STEP_S},
            "jobs": {"hold_s": 60, "poll_s": 0.2},
            "reload": {"poll_s": 0.3, "report_s": 1, "hold_s": 30},
            "serving": dict.fromkeys(stages, SMALL),
        }
        build = {"import_path": "serve_app.app:build", "route_prefix": f"/{SERVICE}"}
        self.file.write_text(
            yaml.safe_dump({"applications": [{"name": SERVICE, **build, "args": args}]})
        )

    def add_file(self, model_id):
        write_weights(self.folder / model_id, 0)
        path = self.folder / "models" / f"{model_id}.yaml"
        path.write_text(yaml.safe_dump(entry(model_id)))

    async def deploy_anew(self):
        """`dreamserve config > serve.yaml && serve deploy serve.yaml`"""
        command = ["config", "--config", str(self.file)]
        done = await asyncio.to_thread(CliRunner().invoke, command_line, command)
        assert done.exit_code == 0, done.output
        self.file.write_text(done.stdout)
        self.deploy()

    def say(self, model_id, user_config):
        """Deploy with another `user_config` of a model of the service."""
        file = yaml.safe_load(self.file.read_text())
        options = [{"name": f"Generator:{model_id}", "user_config": user_config}]
        file["applications"][0]["deployments"] = options
        self.file.write_text(yaml.safe_dump(file))
        self.deploy()

    def deploy(self):
        """As `serve deploy` does: what the REST API does with the file."""
        file = yaml.safe_load(self.file.read_text())
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(file))


@pytest.fixture(scope="module")
def installed(cluster, tmp_path_factory):
    installed = Installation(tmp_path_factory.mktemp("second"), cluster)
    installed.deploy()
    yield installed
    _get_global_client().deploy_apps(ServeDeploySchema(applications=[]))


@pytest.fixture
async def http(installed):
    async with httpx2.AsyncClient(base_url=installed.base_url, timeout=90, trust_env=False) as http:
        try:
            await until(lambda: ready(http))
        except TimeoutError:
            pytest.fail(str(serve.status().applications[SERVICE]))
        yield http


async def until(is_so, timeout_s=200):
    async with asyncio.timeout(timeout_s):
        while not await is_so():
            await asyncio.sleep(0.1)


async def ready(http):
    return (await http.get("/health/ready")).status_code == 200


def actors(application):
    """Ids of the actors that are the replicas of an application; none where there is no such."""
    details = ServeInstanceDetails(**_get_global_client().get_serve_details())
    found = details.applications.get(application)
    if found is None:
        return set()
    deployments = found.deployments.values()
    return {replica.actor_id for one in deployments for replica in one.replicas}


async def ask(http, model_id, **changes):
    body = {"key": "", "model_id": model_id, "prompt": "a cat", "width": "64", "height": "64"}
    body |= {"steps": "2", "seed": 7, "safety_checker": "no"}
    return (await http.post("/api/v4/dreambooth/text2img", json=body | changes)).json()


async def painted(http, model_id):
    """The picture and the generation that made it."""
    answer = await ask(http, model_id)
    assert answer["status"] == "success", answer
    return (await http.get(answer["output"][0])).content, answer["meta"].get("generation", 0)


async def test_model_comes_is_reloaded_and_goes_while_the_others_stay(installed, http):
    others = actors(SERVICE)
    assert len(others) == 6
    write_weights(installed.folder / "hot", 1)
    added = await http.post("/admin/models", json=entry("hot"), headers=OPERATOR)
    assert added.status_code == 201
    refused = await ask(http, "hot")
    assert (refused["status"], refused["reason"]) == ("failed", "model_not_running")
    assert await ready(http)

    await installed.deploy_anew()
    await until(lambda: is_up(http, "hot"))
    first = await painted(http, "hot")
    own = actors("model-hot")
    assert len(own) == 1

    write_weights(installed.folder / "hot", 2)
    body = {"key": "", "model_id": "hot"}
    answer = (await http.post("/api/v4/dreambooth/model_reload", json=body)).json()
    assert (answer["status"], answer["generation"]) == ("success", 1), answer
    second = await painted(http, "hot")
    assert second[0] != first[0]
    assert second[1] == 1
    assert (actors("model-hot"), actors(SERVICE)) == (own, others)

    slow = {"steps": "50", "instant_response": "yes"}
    begun = [(await ask(http, "hot", seed=seed, **slow))["id"] for seed in range(4)]
    await asyncio.gather(*(progressing(http, job_id) for job_id in begun))
    await http.delete("/admin/models/hot", headers=OPERATOR)
    await installed.deploy_anew()
    assert [(await final(http, job_id))["status"] for job_id in begun] == ["success"] * 4
    await until(lambda: is_gone("model-hot"))
    assert "not found" in (await ask(http, "hot"))["message"]
    assert actors(SERVICE) == others


async def test_changed_user_config_reloads_without_a_new_replica(installed, http):
    before, replicas = await painted(http, "first"), actors(SERVICE)
    write_weights(installed.folder / "first", 1)
    installed.say("first", {"note": "the weights of Tuesday"})
    await until(lambda: is_painted_by(http, "first", before[1] + 1))
    after = await painted(http, "first")
    assert after[0] != before[0]

    installed.say("first", {"revision": "../elsewhere"})
    await until(lambda: is_refused(http, "first"))
    assert await painted(http, "first") == after
    assert actors(SERVICE) == replicas
    await until(is_running)


async def is_painted_by(http, model_id, generation):
    return (await painted(http, model_id))[1] == generation


async def is_refused(http, model_id):
    """The operator sees it."""
    seen = (await http.get(f"/admin/models/{model_id}/replicas", headers=OPERATOR)).json()
    return seen["status"] == "failed" and "user_config" in seen["replicas"][0]["reason"]


async def is_running():
    """In Serve's eyes, which sees the end of a deploy some looks later."""
    return serve.status().applications[SERVICE].status == "RUNNING"


async def is_up(http, model_id):
    return (await http.get("/health/ready")).json()["models"].get(model_id, False)


async def is_gone(application):
    return not actors(application)
