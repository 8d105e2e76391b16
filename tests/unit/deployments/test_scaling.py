"""Serve's autoscaling asks our policy."""

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from deployments.options import deploy
from serve_app.config import DeploymentOptions, ServingConfig


class Host:
    pass


def policy_of(**options):
    """As the controller makes it: from the pickled class."""
    options = DeploymentOptions(max_replicas=9, scaling="work", **options)
    bound = deploy(Host, options)._bound_deployment
    policy = bound._deployment_config.autoscaling_config.policy
    return policy.get_policy()(**policy.policy_kwargs)


def context(queued, total, **told):
    """What the controller knows; of each metric the values that each replica told, in order."""
    series = {
        name: {index: [SimpleNamespace(value=v) for v in values] for index, values in enumerate(of)}
        for name, of in told.items()
    }
    return SimpleNamespace(
        total_queued_requests=queued, total_num_requests=total, raw_metrics=series
    )


@pytest.mark.parametrize(
    ("ctx", "wanted"),
    [
        pytest.param(context(0, 0), 0, id="nothing"),
        pytest.param(context(None, 1), 1, id="first-job"),
        pytest.param(
            context(10, 20, job_s=[[9, 2]], work_s=[[0, 11]], busy=[[0, 1]]), 5, id="piled-up"
        ),
        pytest.param(
            context(0, 4, job_s=[[1], [1]], work_s=[[1], [1]], busy=[[0.9], [0.9], []]),
            3,
            id="steady",
        ),
    ],
)
def test_policy_adds_what_replicas_tell(ctx, wanted):
    decided, state = policy_of(target_wait_s=10, target_utilisation=0.75)(ctx)
    assert (decided, state) == (wanted, {})


def test_only_deployments_of_models_scale_by_work():
    with pytest.raises(ValidationError, match="deployments of models"):
        ServingConfig(pool=DeploymentOptions(max_replicas=2, scaling="work"))


def test_calls_are_counted_unless_work_is_asked_for():
    bound = deploy(Host, DeploymentOptions(max_replicas=2))._bound_deployment
    assert bound._deployment_config.autoscaling_config.policy.is_default_policy_function()
