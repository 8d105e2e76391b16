"""What `deploy/kubernetes` holds is what Kubernetes and KubeRay know, to the last field."""

import copy
import functools
import gzip
import json
import operator
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.meta.kuberay_schema import closed

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
FOLDERS = ("base", "migrate")
OLDEST = "1.30"
# Mappings whose keys are names of our own, by the last names of their path.
FREE = {
    ("annotations",),
    ("labels",),
    ("limits",),
    ("matchLabels",),
    ("nodeSelector",),
    ("rayStartParams",),
    ("requests",),
    ("Service", "spec", "selector"),
    ("workerGroupSpecs", "resources"),
    ("RayService", "metadata"),  # Kubernetes itself knows these, not KubeRay
}


def resources() -> dict[str, dict]:
    """Every resource by its file, kind and name."""
    return {
        f"{file.name} {found['kind']} {found['metadata']['name']}": found
        for folder in FOLDERS
        for file in sorted((KUBERNETES / folder).glob("*.yaml"))
        if file.name != "kustomization.yaml"
        for found in yaml.safe_load_all(file.read_text())
    }


RESOURCES = resources()
OF_KUBERNETES = {key: one for key, one in RESOURCES.items() if one["kind"] != "RayService"}
RAYSERVICE = RESOURCES["rayservice.yaml RayService dreamserve"]


@pytest.fixture(scope="session")
def kuberay():
    """A validator of RayService as the oldest KubeRay that we name defines it."""
    file = ROOT / "tests" / "data" / "kuberay-1.6.0.json.gz"
    return jsonschema.Draft202012Validator(closed(json.loads(gzip.decompress(file.read_bytes()))))


def mappings(node, path=()):
    """The path of every mapping of a resource."""
    if isinstance(node, dict):
        yield path
        for key, value in node.items():
            yield from mappings(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from mappings(value, (*path, index))


def is_free(resource: dict, path: tuple) -> bool:
    names = (resource["kind"], *(step for step in path if isinstance(step, str)))
    return any(names[-length:] in FREE for length in (1, 2, 3))


def accepted(resource: dict, accepts) -> list[tuple]:
    """The paths at which a field that nobody knows is not noticed."""
    found = []
    for path in mappings(resource):
        changed = copy.deepcopy(resource)
        functools.reduce(operator.getitem, path, changed)["mispelt"] = "1"
        if accepts(changed):
            found.append(path)
    return found


def is_valid(resource: dict) -> bool:
    try:
        kubernetes_validate.validate(resource, OLDEST, strict=True)
    except kubernetes_validate.ValidationError:
        return False
    return True


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("resource", OF_KUBERNETES)
def test_resource_is_valid_for_kubernetes(resource, version):
    kubernetes_validate.validate(OF_KUBERNETES[resource], version, strict=True)


def test_rayservice_is_valid_for_kuberay(kuberay):
    assert [error.message for error in kuberay.iter_errors(RAYSERVICE)] == []


@pytest.mark.parametrize("name", RESOURCES)
def test_a_misspelt_field_would_be_found_wherever_it_stood(name, kuberay):
    resource = RESOURCES[name]
    accepts = kuberay.is_valid if resource is RAYSERVICE else is_valid
    free = [path for path in mappings(resource) if is_free(resource, path)]
    assert accepted(resource, accepts) == free


@pytest.fixture(scope="session")
def rendered():
    """A folder as kustomize renders it; kubectl has it built in."""
    if (found := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")

    def render(folder: str) -> list[dict]:
        done = subprocess.run(
            [found, "kustomize", KUBERNETES / folder], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return render


def images(node) -> set[str]:
    """Every image of some resources."""
    if isinstance(node, list):
        return set().union(*map(images, node))
    if not isinstance(node, dict):
        return set()
    own = {node["image"]} if isinstance(node.get("image"), str) else set()
    return own.union(*map(images, node.values()))


def test_kustomize_keeps_every_resource(rendered):
    found = {
        (one["kind"], one["metadata"]["name"]) for one in rendered("base") + rendered("migrate")
    }
    assert found == {(one["kind"], one["metadata"]["name"]) for one in RESOURCES.values()}


def test_the_example_takes_all_from_a_registry_of_its_own_and_is_valid(rendered, kuberay):
    found = rendered("example/service") + rendered("example/migrate")
    assert images(found) == {
        image.replace("registry.example.com/dreamserve", "registry.example.net/team/dreamserve")
        if "/" in image
        else f"registry.example.net/mirror/{image}"
        for image in images(list(RESOURCES.values()))
    }
    for one in found:
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "dreamserve"
        assert kuberay.is_valid(one) if one["kind"] == "RayService" else is_valid(one)
    (ingress,) = (one for one in found if one["kind"] == "Ingress")
    assert ingress["spec"]["rules"][0]["host"] == ingress["spec"]["tls"][0]["hosts"][0]
    assert ingress["spec"]["rules"][0]["host"] == "pictures.example.net"
