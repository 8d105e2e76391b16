"""What `deploy/` holds fits the rest."""

import re
from pathlib import Path

import yaml

from serve_app.config import AppConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GIB = 1024**3


def rayservice() -> dict:
    return yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())["spec"]


def test_rayservice_deploys_the_production_config():
    production = yaml.safe_load((ROOT / "configs" / "prod.yaml").read_text())
    assert yaml.safe_load(rayservice()["serveConfigV2"]) == production


def test_rayservice_has_the_node_types_of_the_cluster_file():
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    groups = {
        group["groupName"]: (
            group["minReplicas"],
            group["maxReplicas"],
            group["labels"],
            {name: int(amount) for name, amount in group["resources"].items()},
        )
        for group in rayservice()["rayClusterConfig"]["workerGroupSpecs"]
    }
    assert groups == {
        name: (kind["min_workers"], kind["max_workers"], kind["labels"], kind["resources"])
        for name, kind in cluster["available_node_types"].items()
        if name != cluster["head_node_type"]
    }


def test_rayservice_pods_get_what_ray_is_told_they_have():
    for group in rayservice()["rayClusterConfig"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert limits["cpu"] == group["resources"]["CPU"]
        assert limits.get("nvidia.com/gpu") == group["resources"].get("GPU")
        assert container["image"].endswith("-cuda" if "GPU" in group["resources"] else "-cpu")


def test_rayservice_is_closed():
    """A token for Ray, no root, secrets from a Secret, no way back to root."""
    cluster = rayservice()["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["envFrom"] == [{"secretRef": {"name": "dreamserve-env"}}]
        assert all("env" not in container for container in pod["containers"])


def test_versions_of_ray_are_the_same_everywhere():
    constraints = (ROOT / "constraints.txt").read_text()
    (version,) = re.findall(r"^ray==(\S+)", constraints, flags=re.MULTILINE)
    assert rayservice()["rayClusterConfig"]["rayVersion"] == version


def dockerfile() -> list[tuple[str, str]]:
    """Instruction and arguments, with continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def test_dockerfile_copies_what_exists_and_what_its_ignore_file_lets_through():
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [s for name, rest in dockerfile() if name == "COPY" for s in rest.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert {f"!{source}" for source in sources} <= set(kept)
    assert {"serve_app", "deployments", "configs"} <= set(sources)


def test_dockerfile_runs_as_nobody_special_with_every_version_fixed():
    steps = dockerfile()
    assert [rest for name, rest in steps if name == "USER"] == ["1000:1000"]
    assert "latest" not in str(steps)
    installs = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert all("constraints.txt" in install for install in installs)
    (command,) = (rest for name, rest in steps if name == "CMD")
    assert (ROOT / yaml.safe_load(command)[-1]).exists()


def test_front_proxies_bound_bodies_as_we_do():
    limit = f"{AppConfig().http.max_body_bytes // 1024**2}m"
    assert f"client_max_body_size {limit};" in (DEPLOY / "nginx.conf").read_text()
    ingress = yaml.safe_load((DEPLOY / "ingress.yaml").read_text())
    assert (
        ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == limit
    )


def test_network_policy_lets_others_reach_http_and_metrics_only():
    policy = yaml.safe_load((DEPLOY / "networkpolicy.yaml").read_text())["spec"]
    own, operator, *others = policy["ingress"]
    assert policy["policyTypes"] == ["Ingress"]
    assert own["from"] == [{"podSelector": policy["podSelector"]}]
    assert "ports" not in own
    assert {port["port"] for port in operator["ports"]} == {8265, 8000}
    assert [[port["port"] for port in rule["ports"]] for rule in others] == [[8000], [8080]]
    assert all("namespaceSelector" in source for rule in others for source in rule["from"])
