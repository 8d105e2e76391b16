"""The list of claims to try before a release names what there is, and says what came out."""

import re
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "claims.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| claim |")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_claim_has_a_page_a_way_to_try_it_and_an_outcome(row):
    _, pages, how, last_run, outcome = row
    links = re.findall(r"\]\(([^)#]+)", pages)
    assert links or pages == "all"
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert len(how) > 10
    assert len(outcome) > 5
    assert last_run == "not run" or date.fromisoformat(last_run) >= date(2026, 11, 1)


def test_programs_that_claims_name_exist():
    named = re.findall(r"python -m ([\w.]+)", PAGE)
    assert len(named) >= 3
    paths = [ROOT / name.replace(".", "/") for name in named]
    assert [
        p for p in paths if not (p.with_suffix(".py").exists() or (p / "__main__.py").exists())
    ] == []


def test_tests_that_claims_run_exist():
    named = re.findall(r"pytest (tests/[\w/.]+)", PAGE)
    assert len(named) >= 2
    assert [path for path in named if not (ROOT / path).exists()] == []
