"""The arrow of `docs/architecture.md`: modules import downward only, siblings stay apart."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {
    "serve_app": 0,
    "serve_app.spec_parts": 1,
    "serve_app.types": 1,
    "serve_app.errors": 1,
    "serve_app.failure": 1,
    "serve_app.config": 1,
    "serve_app.telemetry": 1,
    "serve_app.net": 1,
    "serve_app.background": 1,
    "serve_app.fairness": 1,
    "serve_app.imports": 1,
    "serve_app.turnstile": 1,
    "serve_app.engine": 2,
    "serve_app.images": 2,
    "serve_app.models": 2,
    "serve_app.playground": 2,
    "serve_app.storage": 2,
    "serve_app.webhooks": 2,
    "serve_app.jobs": 3,
    "serve_app.pipelines": 3,
    "serve_app.safety": 3,
    "serve_app.api": 4,
    "serve_app.database": 4,
    "serve_app.replica": 4,
    "serve_app.service": 5,
    "deployments": 6,
    "serve_app.app": 7,
    "serve_app.cli": 8,
    "serve_app.testing": 7,  # beside the wiring, so that nothing that serves can import it
}
# Who may import what from outside; the package names are the import's first part.
ONLY_IN = {
    "ray": {"deployments", "serve_app.app"},
    "fastapi": {"serve_app.api"},
    "starlette": {"serve_app.api", "deployments"},
    "torch": {"serve_app.engine", "serve_app.pipelines", "serve_app.safety", "serve_app.replica"},
    "diffusers": {"serve_app.pipelines", "serve_app.safety"},
    "cv2": {"serve_app.pipelines"},
    "transformers": {"serve_app.pipelines", "serve_app.safety"},
    "sqlalchemy": {"serve_app.database"},
    "alembic": {"serve_app.database"},
    "boto3": {"serve_app.storage"},
    "botocore": {"serve_app.storage"},
    "huggingface_hub": {"serve_app.models"},
    "typer": {"serve_app.cli"},
    "opentelemetry": {"serve_app.telemetry"},
}
MAX_LINES = {"deployments": 120, "serve_app": 400, "tests": 400}
FILES = sorted([*ROOT.glob("serve_app/**/*.py"), *ROOT.glob("deployments/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _package(module: str) -> str | None:
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in LAYERS:
            return name
    return None


@functools.cache
def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_module_imports_only_downward(path):
    module = _module(path)
    package = _package(module)
    assert package, f"{module} belongs to no layer"
    for imported in _imports(path):
        other = _package(imported)
        if other is None or other in (package, "serve_app"):
            continue
        below = LAYERS[other] < LAYERS[package] or LAYERS[package] == LAYERS[other] == 1
        assert below, f"{module} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_module_imports_outside_packages_only_where_allowed(path):
    package = _package(_module(path))
    for imported in _imports(path):
        allowed = ONLY_IN.get(imported.split(".")[0])
        is_allowed = allowed is None or package in allowed or package == "serve_app.testing"
        assert is_allowed, f"{_module(path)} imports {imported}"


def _num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_module_stays_small(path):
    assert _num_lines(path) <= MAX_LINES[_module(path).partition(".")[0]]


def test_files_of_tests_stay_small():
    sizes = {_module(path): _num_lines(path) for path in TESTS}
    assert {module for module, size in sizes.items() if size > MAX_LINES["tests"]} == set()


def test_remote_calls_are_in_clients_only():
    users = [_module(path) for path in FILES if ".remote(" in path.read_text(encoding="utf-8")]
    assert users == ["deployments.clients"]


def test_environment_is_read_in_config_only():
    users = {_module(path) for path in FILES if "os.environ" in path.read_text(encoding="utf-8")}
    # The command line hands its own environment on to a child; painters set what torch reads.
    assert users <= {"serve_app.config.app", "serve_app.cli.serving", "serve_app.pipelines"}


@pytest.fixture(scope="module")
def loaded() -> list[set[str]]:
    """All modules that ingress and janitor import, and those with preprocess and upload."""
    code = (
        "import sys, deployments.ingress, deployments.janitor; print(*sys.modules);"
        "import deployments.preprocess, deployments.upload; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_heavy_packages_are_not_imported_by_light_replicas(loaded):
    """Preprocess, Upload, Janitor and Ingress must not pay for torch."""
    light = loaded[1]
    assert {"deployments.preprocess", "deployments.upload"} <= light
    assert not {"torch", "diffusers", "transformers"} & light


def test_foreign_pictures_are_read_by_preprocess_only(loaded):
    """Ingress and janitor hold everybody's jobs: no file of a client may break or fill them."""
    here, with_preprocess = loaded
    assert "serve_app.images.source" in here
    assert "serve_app.images.decode" not in here
    assert "serve_app.images.decode" in with_preprocess
