"""How much of the controller's knowledge is asked for; no cluster."""

from types import SimpleNamespace

import pytest
from ray import serve
from ray.serve._private.application_state import ApplicationStatusInfo, StatusOverview
from ray.serve._private.common import DeploymentStatusInfo
from ray.serve.schema import (
    ApplicationStatus,
    DeploymentStatus,
    DeploymentStatusTrigger,
    ServeStatus,
)

from deployments import controller
from deployments.readiness import is_ready


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
    client = SimpleNamespace(list_serve_statuses=lambda: [short])
    monkeypatch.setattr(controller, "_get_global_client", lambda: client)
    full = ServeStatus()
    monkeypatch.setattr(serve, "status", lambda: full)
    status = controller.ask()
    if not is_healthy:
        assert status is full
        return
    here = status.applications["dreamserve"]
    assert here.status == ApplicationStatus.RUNNING
    names = [{"app_name": "dreamserve", "deployment_name": one} for one in here.deployments]
    assert [is_ready(status, SimpleNamespace(**one)) for one in names] == [True, True]
