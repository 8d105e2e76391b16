"""KubeRay's resource definition, as tests/data keeps it: what validates, without the descriptions.

`python -m tests.meta.kuberay_schema ray.io_rayservices.yaml tests/data/kuberay-1.6.0.json.gz` takes
the file from `helm-chart/kuberay-operator/crds` of KubeRay's repository at the tag of the version
(Apache-2.0).
"""

import gzip
import json
import sys
from pathlib import Path

import yaml


def schema(definition: dict) -> dict:
    """Return the schema of version `v1` without descriptions and without the status."""
    (version,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
    found = _bare(version["schema"]["openAPIV3Schema"])
    del found["properties"]["status"]
    return found


def _bare(node, *, is_names: bool = False):
    """Drop `description` where it is a keyword, not where it is the name of a field."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _bare(value, is_names=key == "properties" and not is_names)
        for key, value in node.items()
        if is_names or key != "description"
    }


def closed(node):
    """Return a schema that refuses unknown fields, which a server drops without a word."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    is_open = "additionalProperties" in node or "x-kubernetes-preserve-unknown-fields" in node
    if node.get("type") == "object" and "properties" in node and not is_open:
        found["additionalProperties"] = False
    return found


if __name__ == "__main__":
    text = json.dumps(
        schema(yaml.safe_load(Path(sys.argv[1]).read_text())), separators=(",", ":"), sort_keys=True
    )
    Path(sys.argv[2]).write_bytes(gzip.compress(text.encode(), 9, mtime=0))
