"""`docs/life-of-a-request.md` is true: what it names is where it says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "life-of-a-request.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", PAGE)))
WALKED = {
    "deployments",
    "serve_app.api",
    "serve_app.database",
    "serve_app.engine",
    "serve_app.images",
    "serve_app.jobs",
    "serve_app.pipelines",
    "serve_app.replica",
    "serve_app.service",
    "serve_app.storage",
}


def _definitions(path: Path) -> set[str]:
    """Names of the classes and functions of a file, those inside others as `outer.inner`."""

    def below(node: ast.AST, prefix: str) -> set[str]:
        found = set()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{child.name}"
                found |= {name} | below(child, f"{name}.")
        return found

    return below(ast.parse(path.read_text(encoding="utf-8")), "")


@pytest.mark.parametrize(("name", "file"), NAMED, ids=lambda value: value)
def test_what_the_walk_names_is_defined_where_it_says(name, file):
    assert name in _definitions(ROOT / file)


def test_walk_passes_every_room_of_a_request():
    rooms = {".".join(Path(file).parts[:2]) for _, file in NAMED}
    assert {room.removesuffix(".py") for room in rooms} >= WALKED - {"deployments"}
    assert any(file.startswith("deployments/") for _, file in NAMED)


def test_links_of_the_walk_all_name_what_they_lead_to():
    """A bare link to a file would be checked by nobody."""
    links = re.findall(r"\]\(\.\./([^)]+)\)", PAGE)
    assert len(links) == len(re.findall(r"\[`[\w.]+`\]\(\.\./[\w/]+\.py\)", PAGE))


def test_settings_that_the_walk_names_exist():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for section, field in re.findall(r"`(jobs|storage|http)\.(\w+)`", PAGE):
        assert f"DREAMSERVE_{section}__{field}`".upper() in page.upper()
