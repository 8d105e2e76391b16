"""What `deploy/` holds fits the rest."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from serve_app.config import AppConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
GIB = 1024**3


def rayservice() -> dict:
    return yaml.safe_load((KUBERNETES / "base" / "rayservice.yaml").read_text())["spec"]


def resources(kind: str) -> dict[str, dict]:
    """What Kubernetes gets of some kind, by name."""
    return {
        found["metadata"]["name"]: found
        for folder in ("base", "migrate")
        for file in sorted((KUBERNETES / folder).glob("*.yaml"))
        for found in yaml.safe_load_all(file.read_text())
        if found["kind"] == kind and file.name != "kustomization.yaml"
    }


def pods() -> dict[str, dict]:
    """Every pod of ours, by what makes it."""
    cluster = rayservice()["rayClusterConfig"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    found = {name: group["template"]["spec"] for name, group in groups.items()}
    for kind in ("Job", "StatefulSet"):
        found |= {n: one["spec"]["template"]["spec"] for n, one in resources(kind).items()}
    for name, one in resources("CronJob").items():
        found[name] = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


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
    """A token for Ray, secrets from a Secret."""
    cluster = rayservice()["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "dreamserve-env"}}]
        assert "env" not in container


CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.mark.parametrize("name", pods())
def test_pod_is_confined(name):
    """No root and no way to it, and as the namespace demands it."""
    pod = pods()[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == CONFINED
    assert name == "head" or not pod["automountServiceAccountToken"]


def test_autoscaler_beside_the_head_is_confined_and_writes_where_the_head_reads():
    """KubeRay adds it to the head's pod with these, and with its own volume `ray-logs`."""
    options = rayservice()["rayClusterConfig"]["autoscalerOptions"]
    head = pods()["head"]
    assert options["securityContext"] == CONFINED
    (container,) = head["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/tmp/ray"] == "ray-logs"
    assert all(mounts[mount["mountPath"]] == mount["name"] for mount in options["volumeMounts"])


@pytest.mark.parametrize("name", pods())
def test_volume_that_is_mounted_is_there(name):
    (container,) = pods()[name]["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pods()[name].get("volumes", ())}
    for found in resources("StatefulSet").values():
        volumes |= {t["metadata"]["name"]: {} for t in found["spec"]["volumeClaimTemplates"]}
    assert mounted <= volumes.keys()
    claims = {
        v["persistentVolumeClaim"]["claimName"]
        for v in volumes.values()
        if len(v) == 2 and "persistentVolumeClaim" in v
    }
    assert claims <= resources("PersistentVolumeClaim").keys()


def test_what_ray_pods_write_is_what_the_image_says():
    comment = re.search(r"All that is written.*?\n(?!#)", (DEPLOY / "Dockerfile").read_text(), re.S)
    for name in ("head", "cpu", "gpu-l4", "gpu-l40s"):
        (container,) = pods()[name]["containers"]
        written = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert written == {"/tmp", "/tmp/ray", "/home/ray", "/var/lib/dreamserve"}
        assert all(path in comment.group() for path in written)
    assert AppConfig(**production()).data_dir == Path("/var/lib/dreamserve")


def production() -> dict:
    return yaml.safe_load((ROOT / "configs" / "prod.yaml").read_text())["applications"][0]["args"]


def test_ray_keeps_its_state_in_the_redis_that_is_there():
    options = rayservice()["rayClusterConfig"]["gcsFaultToleranceOptions"]
    host, _, port = options["redisAddress"].partition(":")
    service = resources("Service")[host]["spec"]
    redis = resources("StatefulSet")[host]["spec"]
    (container,) = redis["template"]["spec"]["containers"]
    assert [str(one["port"]) for one in service["ports"]] == [port]
    assert service["selector"].items() <= redis["template"]["metadata"]["labels"].items()
    (password,) = container["env"]
    assert password["valueFrom"] == options["redisPassword"]["valueFrom"]
    assert "noeviction" in container["args"][0]


def test_budgets_cover_every_group_and_leave_a_drain_something_to_take():
    """More pods than `minAvailable` at the fewest, or no node could ever be drained."""
    groups = {
        g["groupName"]: g["minReplicas"]
        for g in rayservice()["rayClusterConfig"]["workerGroupSpecs"]
    }
    covered = []
    for budget in resources("PodDisruptionBudget").values():
        selector = budget["spec"]["selector"]
        named = [selector["matchLabels"].get("ray.io/group")]
        for one in selector.get("matchExpressions", ()):
            named += one["values"]
        named = [name for name in named if name]
        assert sum(groups[name] for name in named) > budget["spec"]["minAvailable"]
        covered += named
    assert sorted(covered) == sorted(groups)


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
    own = [rest for name, rest in dockerfile() if name == "COPY" and "--from" not in rest]
    sources = {source for rest in own for source in rest.split()[:-1]}
    assert all((ROOT / source).exists() for source in sources)
    assert {line[1:] for line in kept if line.startswith("!")} == sources
    assert {"serve_app", "deployments", "configs"} <= sources


def test_dockerfile_runs_as_nobody_special_with_every_version_fixed():
    steps = dockerfile()
    assert [rest for name, rest in steps if name == "USER"] == ["1000:1000"]
    assert "latest" not in str(steps)
    installs = [
        one
        for name, rest in steps
        if name == "RUN"
        for one in rest.split("&&")
        if "pip install" in one
    ]
    assert len(installs) == 4
    assert all("constraints.txt" in one or "--no-index --no-deps" in one for one in installs)
    (base,) = (rest for name, rest in steps if name == "ARG" and "=" in rest)
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-bookworm", base)
    lists = {name: yaml.safe_load(rest[rest.index("[") :]) for name, rest in steps if "[" in rest}
    command, check = lists["CMD"], lists["HEALTHCHECK"]
    assert (ROOT / command[-1]).exists()
    assert "/health/live" in check[-1]


def test_image_installs_what_the_service_needs():
    """The layer of packages is made without our code; the wheel then adds nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = runpy.run_path(str(DEPLOY / "requirements.py"))["requirements"]
    (extras,) = re.findall(r"requirements.py pyproject.toml ([a-z ]+) >", str(dockerfile()))
    found = requirements(ROOT / "pyproject.toml", extras.split())
    assert set(project["dependencies"]) < set(found)
    optional = {
        name: needs for name, needs in project["optional-dependencies"].items() if name != "dev"
    }
    assert set(extras.split()) == optional.keys()
    assert set(found) - set(project["dependencies"]) == {
        n for needs in optional.values() for n in needs
    }


def test_no_registry_is_named():
    """Whoever builds says where packages and images come from."""
    own = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    known = re.compile(
        r"(pypi|pytorch|pythonhosted|npmjs|debian)\.org|(docker|ghcr|quay|nvcr|gcr)\.io"
    )
    named = [
        (file, found.group())
        for file in own.stdout.splitlines()
        if not file.startswith(("tests/", "docs/images/"))
        and (ROOT / file).is_file()
        and (found := known.search((ROOT / file).read_text(encoding="utf-8", errors="replace")))
    ]
    assert named == []


def test_hadolint_has_nothing_to_say():
    if (hadolint := shutil.which("hadolint", path=str(Path(sys.executable).parent))) is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [hadolint, DEPLOY / "Dockerfile"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_front_proxies_bound_bodies_as_we_do():
    limit = f"{AppConfig().http.max_body_bytes // 1024**2}m"
    assert f"client_max_body_size {limit};" in (DEPLOY / "nginx.conf").read_text()
    (ingress,) = resources("Ingress").values()
    assert (
        ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == limit
    )


def test_network_policy_lets_others_reach_http_and_metrics_only():
    policies = {name: found["spec"] for name, found in resources("NetworkPolicy").items()}
    assert policies["dreamserve-closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    policy = policies["dreamserve"]
    own, operator, *others = policy["ingress"]
    assert policy["policyTypes"] == ["Ingress"]
    assert own["from"] == [{"podSelector": policy["podSelector"]}]
    assert "ports" not in own
    assert {port["port"] for port in operator["ports"]} == {8265, 8000}
    assert [[port["port"] for port in rule["ports"]] for rule in others] == [[8000], [8080]]
    outside = [source for rule in (operator, *others) for source in rule["from"]]
    assert all(source["namespaceSelector"]["matchLabels"] for source in outside)


def test_network_policy_leaves_redis_to_ray_and_workers_without_the_metadata_service():
    policies = {name: found["spec"] for name, found in resources("NetworkPolicy").items()}
    redis = policies["dreamserve-redis"]
    (service,) = resources("Service").values()
    assert redis["podSelector"]["matchLabels"] == service["spec"]["selector"]
    assert [rule["ports"] for rule in redis["ingress"]] == [[{"port": 6379}]]
    assert redis["egress"] == []
    _, outside = policies["dreamserve-workers"]["egress"]
    assert [one["ipBlock"]["except"] for one in outside["to"]] == [
        ["169.254.169.254/32"],
        ["fd00:ec2::254/128"],
    ]
