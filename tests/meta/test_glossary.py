"""The names in the code are words of the glossary, or such as every engineer knows."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tests.meta.rooms import FILES, ROOT

_PLAIN = (
    "action adapter admin api args backend backlog body cache call checker client config "
    "counter database default downloader engine entry failure file frozen generator header "
    "idempotency image ingress key layer limit limiter link loader log lru message metric "
    "mode net now options phase plan policy poster preprocess progress prompt "
    "readiness registry reply report resolver result router rule safety sender service "
    "signer size slash snapshot source spec state status store tensor time upload uploader "
    "weights workload writer"
)
PLAIN = set(_PLAIN.split())
REPEATED = {
    "canary": "the table, the command, the call and the value of a canary",
    "protocol": "what a room asks of others, as Protocols",
    "reload": "the setting, the command, the call and the use case of a reload",
}


def listed() -> set[str]:
    """The words of the glossary: of its first column, and those that a meaning has in italics."""
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    words = [word for row in rows for word in re.sub(r"\(.*?\)", "", row[0]).split(",")]
    return {plain(word) for word in [*words, *re.findall(r"\*([a-z ]+)\*", text)]}


def plain(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word.lower())


def public_classes() -> Iterator[str]:
    """All but exceptions: `docs/errors.md` and the trees in their docstrings list those."""
    found = [
        node
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    bases = {
        node.name: {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
        for node in found
    }
    raised = {"Exception", "BaseException", "ValueError", "RuntimeError", "OSError"}
    while more := {name for name, of in bases.items() if of & raised} - raised:
        raised |= more
    return (node.name for node in found if node.name[0] != "_" and node.name not in raised)


def ends(name: str) -> set[str]:
    """`RowCaps` ends in `caps` and `rowcaps`, and in the singular of both."""
    parts = re.findall(r"[A-Z0-9]+(?![a-z])|[A-Z][a-z0-9]+", name)
    tails = {"".join(parts[at:]).lower() for at in range(len(parts))} | {name.lower()}
    return (
        tails | {re.sub("ies$", "y", tail) for tail in tails} | {tail.rstrip("s") for tail in tails}
    )


def test_classes_end_in_words_that_the_glossary_lists():
    known = listed() | PLAIN
    assert {name for name in public_classes() if not ends(name) & known} == set()


def test_plain_words_are_those_that_are_used_and_not_explained():
    used = {end for name in public_classes() for end in ends(name)}
    assert (PLAIN - used, PLAIN & listed()) == (set(), set())


def test_glossary_is_in_order_and_names_a_standard_term_or_none():
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    assert rows[0] == ["word", "standard term", "meaning"]
    assert {len(row) for row in rows} == {3}
    words = [row[0].lower() for row in rows[2:]]
    assert words == sorted(words)


def test_file_names_that_repeat_are_plain_by_their_folder():
    stems = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert {stem for stem, times in stems.items() if times > 3} == REPEATED.keys()
