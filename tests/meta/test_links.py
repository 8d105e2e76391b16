"""Every link within the pages leads to a file that there is, and to a heading in it."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NOT_OURS = {"build", "node_modules", "out"}  # beside folders whose names begin with a dot
PAGES = [
    page
    for page in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(".") or part in _NOT_OURS for part in page.relative_to(ROOT).parts)
]
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|(?:href|src)=\"([^\"]+)\"", re.MULTILINE)
_NAMED = re.compile(r"\b((?:docs|benchmarks)/[\w/-]+\.md(?:#[\w-]+)?)")


def _links(page: Path) -> list[str]:
    """Return what a page links to, without what it shows as code."""
    text = _CODE.sub("", _FENCED.sub("", page.read_text(encoding="utf-8")))
    return ["".join(groups) for groups in _LINK.findall(text)]


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives to the headings of a page.

    Source: github.com/gjtorikian/html-pipeline, `toc_filter.rb`: lower case, without what is no
    word, hyphen or space; a second one of the same name gets a number.
    """
    text, seen, found = _FENCED.sub("", page.read_text(encoding="utf-8")), Counter(), set()
    for heading in re.findall(r"^#{1,6} +(.+)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip())
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return frozenset(found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text)))


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in _anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    ours = [link for link in _links(page) if not re.match(r"https?:|mailto:", link)]
    assert [link for link in ours if not _leads_somewhere(page, link)] == []


@pytest.mark.parametrize(
    "folder", ["serve_app", "deployments", "deploy", "configs", "benchmarks", "training", "tests"]
)
def test_pages_that_files_name_exist_with_their_headings(folder):
    """Messages, settings, manifests and the runbook of each alert."""
    files = [
        path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".yaml", ".json"}
    ]
    named = {name for file in files for name in _NAMED.findall(file.read_text(encoding="utf-8"))}
    assert [name for name in sorted(named) if not _leads_somewhere(ROOT / "x", name)] == []


def test_links_are_found_in_all_their_forms(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '# A `b` (c): d\n\n## Same\n## Same\n<a id="x"></a>[a](b.md) [![a](c.png)](d.md#e)\n'
        '<img src="f.png">\n[g]: h.md\n`[i](j)`\n```\n# Comment\n[k](l)\n```\n'
    )
    assert _links(page) == ["b.md", "c.png", "d.md#e", "f.png", "h.md"]
    assert _anchors(page) == {"a-b-c-d", "same", "same-1", "x"}
    assert _leads_somewhere(page, "#same-1")
    assert _leads_somewhere(page, "page.md#x")
    assert not _leads_somewhere(page, "#same-2")
    assert not _leads_somewhere(page, "b.md")
