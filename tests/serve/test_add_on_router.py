"""Calls that name an add-on go to the replica that has it, on a real cluster."""

import asyncio

import pytest
from ray import serve

from deployments.add_on_router import add_on_router
from deployments.options import deploy
from serve_app.config import DeploymentOptions
from serve_app.types import LoraUse
from tests.builders import spec

pytestmark = [pytest.mark.ray, pytest.mark.slow]
OPTIONS = DeploymentOptions(
    min_replicas=2, max_replicas=2, num_cpus=0, max_ongoing_requests=2, add_on_slack_calls=1
)


class Painter:
    """Returns which replica painted, after a moment."""

    async def paint(self, _job_id, _spec, _images, wait_s=0.0):
        await asyncio.sleep(wait_s)
        return serve.get_replica_context().replica_id.unique_id


@pytest.fixture(scope="module")
def painter(cluster):
    bound = deploy(Painter, OPTIONS, router=add_on_router(OPTIONS))
    yield serve.run(bound, name="add-ons", route_prefix=None).options(_by_reference=True)
    serve.delete("add-ons")


async def test_calls_that_name_an_add_on_go_to_one_replica_until_it_is_busy(painter):
    def paint(name, wait_s=0.0):
        return painter.paint.remote(1, spec(loras=(LoraUse(id=name, strength=1),)), None, wait_s)

    # The homes hang on the replicas' random ids: with 32 names, one gets all once in 2**31 runs.
    homes = {name: {await paint(name) for _ in range(3)} for name in map(str, range(32))}
    assert all(len(home) == 1 for home in homes.values())
    both = set.union(*homes.values())
    assert len(both) == 2
    # More at once than one replica takes, four times over: nobody is lost, both work.
    answers = [paint("7", 0.1) for _ in range(16)]
    assert {await answer for answer in answers} == both
