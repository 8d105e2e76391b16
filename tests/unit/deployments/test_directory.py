"""Who paints a model, by what the controller tells; no cluster."""

import asyncio
from threading import Event
from types import SimpleNamespace

import pytest
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
    ServeStatus,
)

from deployments import controller as asked
from deployments.directory import Directory
from deployments.readiness import is_staying
from serve_app import errors


class Handle(SimpleNamespace):
    def options(self, **chosen):
        return Handle(**vars(self) | chosen)


POOL = Handle(deployment_name="Pool", app_name="dreamserve")
FILED = Handle(deployment_name="Generator:filed", app_name="dreamserve")


class Controller:
    """`serve`, as far as the directory asks it."""

    def __init__(self):
        self.applications = {}

    def say(self, name, status, **running):
        """An application with the replicas that run, by deployment."""
        deployments = {
            deployment.replace("_", ":"): DeploymentStatusOverview(
                status=DeploymentStatus.HEALTHY,
                status_trigger=DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED,
                replica_states={ReplicaState.RUNNING: count}
                if count
                else {ReplicaState.STARTING: 1},
                message="",
            )
            for deployment, count in running.items()
        }
        self.applications[name] = ApplicationStatusOverview(status, "", 0.0, deployments)

    def status(self):
        return ServeStatus(applications=dict(self.applications))


@pytest.fixture
def controller(monkeypatch):
    controller = Controller()
    controller.say("dreamserve", ApplicationStatus.RUNNING, Generator_filed=1, Pool=1)
    monkeypatch.setattr(asked, "ask", controller.status)
    context = SimpleNamespace(app_name="dreamserve")
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)

    def handle(name, application, **_):
        return Handle(deployment_name=name, app_name=application)

    monkeypatch.setattr(serve, "get_deployment_handle", handle)
    return controller


BUILT = ApplicationStatusOverview(ApplicationStatus.DEPLOYING, "", 0.0, {})  # of no deployments


def directory(pool=None):
    return Directory({"filed": FILED}, pool)


async def wait_for_hot(models):
    async with models.calling(models.find("hot")):
        await asyncio.Event().wait()


RUNNING, DEPLOYING = ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING
FAILED, DELETING = ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.DELETING


@pytest.mark.parametrize(
    ("status", "running", "alone", "with_pool"),
    [
        pytest.param(None, 0, None, "Pool", id="not-deployed"),
        pytest.param(DEPLOYING, 0, "Generator:hot", "Pool", id="starting"),
        pytest.param(RUNNING, 1, "Generator:hot", "Generator:hot", id="running"),
        pytest.param(DEPLOYING, 1, "Generator:hot", "Generator:hot", id="updated"),
        pytest.param(FAILED, 0, None, "Pool", id="failed"),
        pytest.param(FAILED, 1, "Generator:hot", "Generator:hot", id="update-failed"),
        pytest.param(DELETING, 1, None, "Pool", id="leaving"),
    ],
)
async def test_model_is_painted_by(controller, status, running, alone, with_pool):
    if status is not None:
        controller.say("model-hot", status, Generator_hot=running)
    for pool, wanted in ((None, alone), (POOL, with_pool)):
        models = directory(pool)
        await models.look()
        found = models.find("hot")
        assert (found and found.deployment_name) == wanted
        assert found is None or models.is_pool(found) == (wanted == "Pool")


async def test_model_of_a_file_stays_in_its_application(controller):
    controller.say("model-filed", RUNNING, Generator_filed=1)
    models = directory()
    await models.look()
    assert models.find("filed") is FILED


async def test_models_of_their_own_are_those_here_and_in_applications(controller):
    controller.say("model-late", ApplicationStatus.RUNNING, Generator_late=1)
    known = directory(POOL)
    await known.look()
    assert sorted(known.model_ids()) == ["filed", "late"]


async def test_readiness_is_that_of_who_paints(controller):
    controller.say("model-hot", RUNNING, Generator_hot=1)
    controller.say("model-new", DEPLOYING, Generator_new=0)
    asked = ["filed", "hot", "new", "none"]
    assert list((await directory().readiness(asked)).values()) == [True, True, False, False]
    assert all((await directory(POOL).readiness(asked)).values())


async def test_call_that_waits_for_an_application_that_goes_is_lost(controller):
    controller.say("model-hot", RUNNING, Generator_hot=1)
    models = directory()
    await models.look()
    waiting = asyncio.create_task(wait_for_hot(models))
    controller.say("model-hot", DELETING)
    await models.look()
    assert not waiting.done()
    del controller.applications["model-hot"]
    await models.look()
    with pytest.raises(errors.ReplicaLost):
        await waiting


async def test_old_look_does_not_end_after_a_newer_one(controller, monkeypatch):
    controller.say("model-hot", RUNNING, Generator_hot=1)
    answers = [ServeStatus(), controller.status()]
    models, is_seen = directory(), Event()

    def status():
        answer = answers.pop(0)
        if answers:
            is_seen.wait(0.2)
        return answer

    async def look():
        await models.look()
        if models.find("hot"):
            is_seen.set()

    monkeypatch.setattr(asked, "ask", status)
    await asyncio.gather(look(), look())
    assert models.find("hot") is not None


async def test_rounds_outlast_a_controller_that_is_away(controller, monkeypatch):
    looks = []

    def fail():
        looks.append(1)
        raise errors_of_ray()

    monkeypatch.setattr(asked, "ask", fail)
    models = directory()
    rounds = asyncio.create_task(models.run(0.001))
    while len(looks) < 2:
        await asyncio.sleep(0.001)
    monkeypatch.setattr(asked, "ask", controller.status)
    controller.say("model-hot", RUNNING, Generator_hot=1)
    while models.find("hot") is None:
        await asyncio.sleep(0.001)
    rounds.cancel()


def errors_of_ray():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


async def test_call_that_waits_for_an_application_that_cannot_be_deployed_is_lost(controller):
    controller.say("model-hot", DEPLOYING, Generator_hot=0)
    models = directory()
    await models.look()
    waiting = asyncio.create_task(wait_for_hot(models))
    await asyncio.sleep(0)
    controller.say("model-hot", FAILED, Generator_hot=0)
    for _ in range(2):  # the second look finds a call that is ending already
        await models.look()
    with pytest.raises(errors.ReplicaLost):
        await asyncio.wait_for(waiting, 30)


async def test_replicas_answer_while_their_application_is_built_anew(controller):
    controller.say("model-hot", RUNNING, Generator_hot=1)
    models = directory(POOL)
    await models.look()
    controller.applications |= {"model-hot": BUILT, "dreamserve": BUILT}
    assert await models.readiness(["filed", "hot"]) == {"filed": True, "hot": True}
    assert models.find("hot").deployment_name == "Generator:hot"


async def test_pool_with_an_application_of_its_own_is_looked_for_there(controller):
    pool = Handle(deployment_name="Pool", app_name="stage-pool")
    models = Directory({}, pool)
    assert await models.readiness(["tail"]) == {"tail": False}
    controller.say("stage-pool", RUNNING, Pool=1)
    assert await models.readiness(["tail"]) == {"tail": True}
    assert await models.runs(pool)


@pytest.mark.parametrize(
    ("status", "stays"),
    [(RUNNING, True), (DEPLOYING, True), (FAILED, True), (DELETING, False)],
    ids=["running", "updated", "update-failed", "leaving"],
)
async def test_replica_that_stops_knows_whether_its_application_stays(controller, status, stays):
    controller.say("dreamserve", status)
    assert await is_staying() is stays


async def test_without_a_controller_nothing_stays(controller, monkeypatch):
    def ask():
        raise RayActorError

    monkeypatch.setattr(asked, "ask", ask)
    assert not await is_staying()
