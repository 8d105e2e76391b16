"""Our options as Ray Serve understands them."""

import pytest

from deployments.options import deploy, serve_options
from serve_app.config import DeploymentOptions


class Host:
    pass


def deployed(**options):
    return deploy(Host, DeploymentOptions(**options))._bound_deployment


def test_defaults_ask_for_no_special_node():
    assert serve_options(DeploymentOptions())["ray_actor_options"] == {
        "num_cpus": 0.1,
        "num_gpus": 0.0,
    }


def test_resource_options_reach_the_actor():
    wanted = {
        "num_gpus": 1.0,
        "memory": 8 * 1024**3,
        "accelerator_type": "L4",
        "resources": {"nvme": 1.0},
        "label_selector": {"role": "gpu", "market": "!spot"},
    }
    actor = deployed(**wanted).ray_actor_options
    assert {name: actor[name] for name in wanted} == wanted


def test_replicas_per_node_are_bounded():
    bound = deployed(min_replicas=2, max_replicas=8, max_replicas_per_node=2)
    assert bound._replica_config.max_replicas_per_node == 2


@pytest.mark.parametrize("percent", [20, 0])
def test_new_replicas_start_before_old_ones_stop_by_so_many(percent):
    options = {} if percent == 20 else {"max_surge_percent": percent}
    assert deployed(**options)._deployment_config.max_surge_percent == percent


def test_equal_bounds_switch_autoscaling_off():
    assert deployed(min_replicas=3, max_replicas=3).num_replicas == 3
    assert "autoscaling_config" not in serve_options(DeploymentOptions())


def test_autoscaling_hears_of_a_burst_as_often_as_asked():
    options = serve_options(DeploymentOptions(max_replicas=2, report_s=3))
    assert options["autoscaling_config"]["metrics_interval_s"] == 3


@pytest.mark.parametrize(
    "options",
    [
        {"label_selector": {"role": "a b"}},
        {"accelerator_type": "an L4"},
        {"max_replicas_per_node": 0},
        {"min_replicas": 2, "max_replicas": 1},
    ],
    ids=["selector", "accelerator", "per-node", "range"],
)
def test_nonsense_is_refused_before_anything_is_deployed(options):
    with pytest.raises(ValueError):
        deployed(**options)
