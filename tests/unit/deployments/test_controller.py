"""How much of the controller's knowledge is asked for; no cluster."""

from types import SimpleNamespace

import pytest
from ray.serve._private.application_state import ApplicationStatusInfo, StatusOverview
from ray.serve._private.common import DeploymentStatusInfo
from ray.serve.schema import (
    ApplicationDetails,
    ApplicationStatus,
    DeploymentDetails,
    DeploymentSchema,
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaDetails,
    ReplicaState,
    ServeInstanceDetails,
)

from deployments import controller
from deployments.readiness import is_ready


def described_by_the_controller(state, trigger):
    """What it says in full of a deployment of which one replica runs and another starts."""
    replicas = [
        ReplicaDetails(replica_id=name, state=each, actor_name="", start_time_s=0.0)
        for name, each in (("a", ReplicaState.RUNNING), ("b", ReplicaState.STARTING))
    ]
    pool = DeploymentDetails(
        name="Pool",
        status=state,
        status_trigger=trigger,
        message="one to come",
        deployment_config=DeploymentSchema(name="Pool"),
        target_num_replicas=2,
        required_resources={},
        replicas=replicas,
    )
    application = ApplicationDetails(
        name="dreamserve",
        route_prefix="/",
        docs_path=None,
        status=ApplicationStatus.DEPLOYING,
        message="",
        last_deployed_time_s=1.0,
        deployed_app_config=None,
        deployments={"Pool": pool},
        source="imperative",
        external_scaler_enabled=False,
    )
    return ServeInstanceDetails(
        controller_info={},
        proxy_location="HeadOnly",
        proxies={},
        applications={"dreamserve": application},
    )


@pytest.mark.parametrize("is_healthy", [True, False])
def test_controller_describes_deployments_in_full_only_while_one_is_not_healthy(
    monkeypatch, is_healthy
):
    state = DeploymentStatus.HEALTHY if is_healthy else DeploymentStatus.UPDATING
    trigger = DeploymentStatusTrigger.CONFIG_UPDATE_COMPLETED
    short = StatusOverview(
        app_status=ApplicationStatusInfo(ApplicationStatus.RUNNING, "", 1.0),
        name="dreamserve",
        deployment_statuses=[
            DeploymentStatusInfo("Upload", DeploymentStatus.HEALTHY, trigger),
            DeploymentStatusInfo("Pool", state, trigger),
        ],
    )
    described = described_by_the_controller(state, trigger)
    client = SimpleNamespace(
        list_serve_statuses=lambda: [short],
        get_serve_details=lambda: described._get_user_facing_json_serializable_dict(
            exclude_unset=True
        ),
    )
    monkeypatch.setattr(controller, "_get_global_client", lambda: client)
    status = controller.ask()
    if not is_healthy:
        assert status.applications == described._get_status().applications
        return
    here = status.applications["dreamserve"]
    assert here.status == ApplicationStatus.RUNNING
    names = [{"app_name": "dreamserve", "deployment_name": one} for one in here.deployments]
    assert [is_ready(status, SimpleNamespace(**one)) for one in names] == [True, True]
