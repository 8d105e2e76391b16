"""The docs say what the code does."""

import re
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.api.replies import present, wire
from serve_app.config import LimitsConfig, reference
from serve_app.telemetry import metrics
from tests.meta import formats, rooms
from tests.meta.test_layers import LAYERS, MAX_LINES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_settings_page_is_up_to_date():
    """If this fails: `dreamserve settings > docs/configuration.md`."""
    assert (DOCS / "configuration.md").read_text() == reference.markdown()


def test_metrics_page_is_up_to_date():
    """If this fails: `dreamserve metrics > docs/metrics.md`."""
    assert (DOCS / "metrics.md").read_text() == metrics.markdown()


ERRORS = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
ROWS_OF_ERRORS = {
    row[0].strip("`"): row[1:]
    for row in (
        line.strip("| ").split(" | ") for line in (DOCS / "errors.md").read_text().splitlines()
    )
    if len(row) == 4 and row[0].startswith("`")
}
WORDED = {
    "not_allowed",
    "not_served",
    "add_on_misfit",
    "invalid_fields",
    "invalid_image",
    "invalid_request",
}


def test_page_of_errors_lists_every_code_and_no_other():
    """Two codes are of replies that no error class makes."""
    codes = {cls.code for cls in ERRORS} | {"already_finished", "no_such_call"}
    assert sorted(ROWS_OF_ERRORS) == sorted(codes)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_page_of_errors_has_the_status_and_the_message(cls):
    status, message, _ = ROWS_OF_ERRORS[cls.code]
    assert status == str(cls.status)
    if cls is errors.TooManyOpen:
        text = cls(LimitsConfig().max_open_per_key, 0).public_message
        assert text == "Rate limit exceeded" + message.split("followed by: ")[1]
    elif cls is errors.WeightsRefused:
        assert message == cls("sd15", "why").public_message
    else:
        assert message.startswith("names " if cls.code in WORDED else cls.message)


def test_texts_of_replies_that_are_no_errors_are_those_of_their_page():
    told = {code: row[1] for code, row in ROWS_OF_ERRORS.items()}
    assert told["no_such_call"] == " ".join(wire.ROUTING_TEXTS.values())
    assert told["already_finished"] == present.TOO_LATE


def test_numbers_of_lines_that_contributing_names_are_those_of_the_test():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"(\d+) lines", page)) == {str(limit) for limit in MAX_LINES.values()}


def test_benchmarks_that_make_runs_are_in_their_page():
    makefile = (ROOT / "Makefile").read_text().split("\nbench:", 1)[1].split("\n\n", 1)[0]
    page = (ROOT / "benchmarks" / "README.md").read_text()
    runs = re.findall(r"-m (benchmarks\.\w+)", makefile)
    assert len(runs) >= 10
    assert [name for name in runs if f"`python -m {name}" not in page] == []


def test_every_benchmark_is_in_a_page():
    pages = (ROOT / "benchmarks" / "README.md").read_text() + (DOCS / "samplers.md").read_text()
    folder = ROOT / "benchmarks"
    programs = [path for path in folder.glob("*.py") if "__main__" in path.read_text()]
    programs += folder.glob("*/__main__.py")
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in programs
    }
    assert [name for name in sorted(names) if f"python -m {name}" not in pages] == []


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


def test_readme_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert targets[:3] == ["demo", "test", "run"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
