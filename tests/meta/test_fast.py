"""`make test-fast` stays fast: its tests import none of the packages that import slowly."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"diffusers", "moto", "peft", "ray", "torch", "transformers"}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FOLDERS = re.findall(r"^FAST := (.+)", MAKEFILE, flags=re.MULTILINE)[0].split()
CONFTEST = ROOT / "tests" / "conftest.py"
PLUGINS = re.findall(r'"tests\.(\w+)"', CONFTEST.read_text(encoding="utf-8"))
FILES = [
    CONFTEST,
    *(ROOT / "tests" / f"{name}.py" for name in PLUGINS),
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.py")),
]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    _module(path): path
    for folder in ("serve_app", "deployments", "benchmarks", "tests")
    for path in ROOT.glob(f"{folder}/**/*.py")
}


def _statements(node: ast.AST) -> list[ast.stmt]:
    """Return what runs at the import of a module: everything outside of functions."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.stmt):
            found.append(child)
        found += _statements(child)
    return found


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    names = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    parents = {name.rpartition(".")[0] for name in names}
    return frozenset(names | parents)


def _reached(path: Path) -> set[Path]:
    found, todo = {path}, [path]
    while todo:
        new = {MODULES[name] for name in _imports(todo.pop()) if name in MODULES} - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_fast_tests_import_nothing_heavy(path):
    for module in _reached(path):
        heavy = {name for name in _imports(module) if name.split(".")[0] in HEAVY}
        assert not heavy, f"{_module(module)} imports {', '.join(sorted(heavy))}"


def test_heavy_imports_are_seen_through_other_modules():
    reached = _reached(ROOT / "tests" / "unit" / "pipelines" / "test_encode_cache.py")
    assert any("torch" in _imports(module) for module in reached)


def test_folders_exist():
    assert [folder for folder in FOLDERS if not (ROOT / folder).is_dir()] == []
