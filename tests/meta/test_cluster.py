"""The cluster files fit the service that they are for."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import pytest
import ray.autoscaler
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from serve_app.config import AppConfig, DeploymentOptions
from serve_app.models import Catalogue

ROOT = Path(__file__).parents[2]
SERVE_CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def read(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text())


@dataclass
class Node:
    """What a node of some type has left."""

    free: Counter[str]
    labels: dict[str, str]
    replicas: Counter[str]

    def take(self, name: str, options: DeploymentOptions) -> bool:
        """Place a replica here if it fits."""
        wanted = Counter({"CPU": options.num_cpus, "GPU": options.num_gpus, **options.resources})
        if options.accelerator_type is not None:
            wanted[f"accelerator_type:{options.accelerator_type}"] = 0.001
        if (
            options.label_selector.items() <= self.labels.items()
            and all(self.free[resource] >= amount for resource, amount in wanted.items())
            and self.replicas[name] < (options.max_replicas_per_node or 100)
        ):
            self.free.subtract(wanted)
            self.replicas[name] += 1
            return True
        return False


def nodes(bound: str) -> list[Node]:
    """All nodes of `cluster.yaml` but the head, at the fewest or the most."""
    cluster = read("cluster.yaml")
    return [
        Node(Counter(kind["resources"]), kind["labels"], Counter())
        for name, kind in cluster["available_node_types"].items()
        if name != cluster["head_node_type"]
        for _ in range(kind[f"{bound}_workers"])
    ]


def production() -> dict[str, DeploymentOptions]:
    """Every deployment of `configs/prod.yaml` with its options."""
    config = AppConfig.model_validate(
        {**read("configs/prod.yaml")["applications"][0]["args"], "root_dir": ROOT}
    )
    stages = {name: getattr(config.serving, name) for name in type(config.serving).model_fields}
    models = {entry.id: entry.serve for entry in Catalogue.load(config.catalogue, ROOT)}
    return stages | models


def unplaced(bound: str) -> list[str]:
    """Deployments of which a replica finds no node; the large ones are placed first."""
    free = nodes(bound)
    wishes = [
        (name, options)
        for name, options in production().items()
        for _ in range(getattr(options, f"{bound}_replicas"))
    ]
    wishes.sort(key=lambda wish: (wish[1].num_gpus, wish[1].num_cpus), reverse=True)
    return [name for name, options in wishes if not any(n.take(name, options) for n in free)]


@pytest.mark.parametrize("bound", ["min", "max"])
def test_cluster_holds_the_production_service(bound):
    assert unplaced(bound) == []


def test_production_uses_every_node_type():
    """A GPU type without a model, or the other way round, is a mistake in one of the files."""
    kinds = read("cluster.yaml")["available_node_types"].values()
    offered = {name for kind in kinds for name in kind["resources"] if ":" in name}
    wanted = {f"accelerator_type:{o.accelerator_type}" for o in production().values()}
    assert wanted - {"accelerator_type:None"} == offered


def test_cluster_file_is_valid_for_ray():
    cluster = prepare_config(read("cluster.yaml"))
    validate_config(cluster)
    assert cluster["setup_commands"] == []
    types = cluster["available_node_types"]
    most = sum(kind["max_workers"] for name, kind in types.items() if name != "head")
    assert cluster["max_workers"] == most


def test_cluster_file_has_only_names_that_ray_knows():
    """The schema refuses unknown names on these two levels only."""
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = read("cluster.yaml")
    assert cluster.keys() <= schema["properties"].keys()
    assert cluster["docker"].keys() <= schema["properties"]["docker"]["properties"].keys()


NODE_TYPES = read("cluster.yaml")["available_node_types"]


@pytest.mark.parametrize("name", NODE_TYPES)
def test_nodes_are_what_aws_can_start(name):
    """Every field of the call exists, and has the right type; `ray up` looks at neither."""
    call = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    wanted = NODE_TYPES[name]["node_config"] | {"MinCount": 1, "MaxCount": 1}
    wrong = wanted | {"MetadataOption": {}}
    assert ParamValidator().validate(wanted, call.input_shape).generate_report() == ""
    assert ParamValidator().validate(wrong, call.input_shape).has_errors()


def test_nodes_are_closed():
    """No public address, no role for a forged GET, no privilege, nothing to write but scratch."""
    cluster = read("cluster.yaml")
    assert cluster["provider"]["use_internal_ips"]
    for node in NODE_TYPES.values():
        assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])
    options = set(cluster["docker"]["run_options"])
    assert {"--cap-drop ALL", "--security-opt no-new-privileges", "--read-only"} <= options
    assert {option.split()[1] for option in options if option.startswith("--volume")} == {
        *("/models:/models:ro", "/tmp", "/home/ray", "/var/lib/dreamserve"),
    }
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][1]


def test_replicas_never_land_on_the_head():
    cluster = read("cluster.yaml")
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert all(options.num_cpus > 0 for options in production().values())


@pytest.mark.parametrize("path", SERVE_CONFIGS, ids=lambda path: path.stem)
def test_serve_config_is_valid_for_ray_and_for_us(path):
    values = yaml.safe_load(path.read_text())
    schema = ServeDeploySchema.model_validate(values)
    assert values.keys() <= ServeDeploySchema.model_fields.keys()
    AppConfig.model_validate(schema.applications[0].args)
