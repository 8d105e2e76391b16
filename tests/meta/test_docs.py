"""The docs say what the code does."""

import re
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.config import reference
from serve_app.telemetry import metrics
from tests.meta import formats, rooms
from tests.meta.test_layers import LAYERS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_settings_page_is_up_to_date():
    """If this fails: `dreamserve settings > docs/configuration.md`."""
    assert (DOCS / "configuration.md").read_text() == reference.markdown()


def test_metrics_page_is_up_to_date():
    """If this fails: `dreamserve metrics > docs/metrics.md`."""
    assert (DOCS / "metrics.md").read_text() == metrics.markdown()


@pytest.mark.parametrize("cls", [getattr(errors, n) for n in errors.__all__ if n[0].isupper()])
def test_error_has_a_row_in_its_page(cls):
    page = (DOCS / "errors.md").read_text()
    assert f"| `{cls.code}` | {cls.status} |" in page


def test_page_of_rooms_is_up_to_date():
    """If this fails: `python -m tests.meta.rooms > docs/rooms.md`."""
    assert (DOCS / "rooms.md").read_text() == rooms.markdown()


def test_page_of_formats_is_up_to_date():
    """If this fails: `python -m tests.meta.formats > docs/formats.md`."""
    assert (DOCS / "formats.md").read_text() == formats.markdown()


def test_rooms_of_the_architecture_are_those_of_the_layers():
    text = (DOCS / "architecture.md").read_text()
    named = re.findall(r"^\| (\d) \| `([^`]+)` \|", text, flags=re.MULTILINE)
    found = {name.removesuffix(".py").replace("/", "."): int(layer) for layer, name in named}
    assert found | {"serve_app": 0} == LAYERS


def test_files_that_documents_name_exist():
    missing = []
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        if page.name == "CHANGELOG.md":
            continue
        for name in re.findall(
            r"`((?:serve_app|deployments|tests|benchmarks|configs)/[\w/.-]+)`", page.read_text()
        ):
            if not (ROOT / name).exists():
                missing.append((page.name, name))
    assert missing == []


def test_index_lists_every_page_and_no_other():
    links = re.findall(r"\]\(([^)]+)\)", (DOCS / "README.md").read_text())
    assert [link for link in links if not (DOCS / link).exists()] == []
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert sorted(link for link in links if "/" not in link) == sorted(pages)


def test_links_between_documents_lead_somewhere():
    missing = []
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        text = re.sub("`[^`\n]+`", "", page.read_text())
        for link in re.findall(r"\]\(((?!https?:)[^)#\s]+)", text):
            if not (page.parent / link).exists():
                missing.append((page.name, link))
    assert missing == []


def test_readme_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert targets[:3] == ["demo", "test", "run"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_ci_runs_the_same_targets():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script
    assert "make test" in script
