"""`make mutants` makes the faults that it says, in a copy, and knows which are none."""

import ast
import subprocess
import sys

import pytest

from tests.mutants.operators import mutants_of
from tests.mutants.sample import ROOMS, ROOT, equivalents, identity, mutants_in, named, sample

CHANGES = {
    "x = a < b": {"a <= b", "a >= b"},
    "x = a == b": {"a != b"},
    "x = a is not b": {"a is b"},
    "x = a in b": {"a not in b"},
    "x = a and b": {"a or b", "a"},
    "x = a + b": {"a - b"},
    "x = -a": {"a"},
    "x = not a": {"a"},
    "x = 3": {"4"},
    "x = True": {"False"},
    "x = a if b else c": {"c if b else a"},
    "x = (a, b, c)": {"(a, b)"},
    "x = f(a, b)": {"f(b, a)"},
    "x = f(a, k=b)": {"f(a)"},
    "x = min(a, b)": {"max(a, b)"},
    "x = math.ceil(a)": {"a"},
    "f(a)": {"pass"},
    "raise Error": {"pass"},
    "self.x = a": {"pass"},
    "if a: x = b": {"not a"},
    "with a: x = b": {"if True:\n    x = b"},
    "async def f(): await g()": {"pass"},
    "def f(): return a": {"return None"},
    "for x in a: continue": {"break"},
    "assert a < b": set(),
    "_log.info(a, b=c)": set(),
    "x: Annotated[int, 3] = a": set(),
    "x = f'{a + b}'": set(),
    "x = Field(description=a)": set(),
    "Size = tuple[a, b]": set(),
    "T = TypeVar('T', bound=a)": set(),
}


@pytest.mark.parametrize("code", CHANGES)
def test_faults_of_a_line_are_those_listed(tmp_path, code):
    (tmp_path / "a.py").write_text(code)
    found = [one.after for one in mutants_of(tmp_path / "a.py", tmp_path)]
    plain = [
        text[1:-1] if text.startswith("(") and text not in CHANGES[code] else text for text in found
    ]
    assert sorted(plain) == sorted(CHANGES[code])


def test_a_fault_changes_its_place_alone(tmp_path):
    """Offsets are in bytes: letters before it may take two."""
    (tmp_path / "a.py").write_text('x = "éé"\nif "é" == a(1 < 2): pass\n')
    second = [one for one in mutants_of(tmp_path / "a.py", tmp_path) if one.after == "(1 <= 2)"]
    changed = second[0].apply((tmp_path / "a.py").read_bytes()).decode()
    assert changed == 'x = "éé"\nif "é" == a((1 <= 2)): pass\n'


@pytest.mark.parametrize("room", ["net", "engine"])
def test_every_fault_is_python_and_a_change(room):
    for mutant in mutants_in(room)[::9]:
        source = (ROOT / mutant.path).read_bytes()
        changed = mutant.apply(source)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), str(mutant)


def test_rooms_exist_and_a_seed_draws_the_same_sample():
    assert [room for room in ROOMS if not (ROOT / "serve_app" / room).is_dir()] == []
    drawn = sample(["net", "jobs"], 3, seed=5)
    assert [one.path.split("/")[1] for one in drawn] == ["net", "jobs"] * 3
    assert drawn == sample(["net", "jobs"], 3, seed=5) != sample(["net", "jobs"], 3, seed=6)


def test_equivalents_name_faults_that_there_are_and_say_why():
    known = equivalents()
    rooms = {path.split("/")[1] for path, _, _ in known}
    there = {identity(mutant) for room in rooms for mutant in mutants_in(room)}
    assert [one for one in known if one not in there] == []
    assert [one for one, why in known.items() if len(why) < 10] == []


@pytest.mark.parametrize("row", named(), ids=lambda row: row["fault"])
def test_named_fault_can_be_made_and_its_test_exists(row):
    assert set(row) == {"fault", "path", "before", "after", "test"}
    assert (ROOT / row["path"]).read_text().count(row["before"]) == 1
    path, _, name = row["test"].partition("::")
    text = (ROOT / path).read_text()
    assert not name or f"def {name.partition('[')[0]}(" in text


_PROGRAM = """
import sys
from pathlib import Path
from tests.mutants.operators import mutants_of
from tests.mutants.sandbox import FAST, Sandbox

class Plugin:
    def at_end(self): pass

root = Path(sys.argv[1])
box = Sandbox(root, Path(sys.argv[2]), ())
(mutant,) = [m for m in mutants_of(root / "serve_app" / "a.py", root) if m.after == "(a <= 3)"]
print(box.run([*FAST, "tests/test_a.py"], Plugin(), 60)[0])
with box.changed("serve_app/a.py", mutant.apply):
    print(box.run([*FAST, "tests/test_a.py"], Plugin(), 60)[0])
print(box.run([*FAST, "tests/test_a.py"], Plugin(), 60)[0])
print(box.run(["tests/test_a.py"], Plugin(), 60)[0])
print(box.run(["tests/test_a.py"], Plugin(), 0)[0])
"""


def test_a_fault_is_made_in_a_copy_and_taken_back(tmp_path):
    tree = tmp_path / "tree"
    (tree / "serve_app").mkdir(parents=True)
    (tree / "tests").mkdir()
    (tree / "serve_app" / "__init__.py").write_text("")
    (tree / "serve_app" / "a.py").write_text("def f(a):\n    return a < 3\n")
    (tree / "tests" / "test_a.py").write_text(
        "import pytest\nfrom serve_app.a import f\n\ndef test_f():\n    assert not f(3)\n"
        "\n@pytest.mark.slow\ndef test_slow():\n    assert f(3)\n"
    )
    names = ("slow", "long", "ray", "gpu", "ops", "browser", "chaos", "postgres")
    markers = "".join(f"\n    {name}: x" for name in names)
    (tree / "pytest.ini").write_text(f"[pytest]\npythonpath = .\nmarkers ={markers}\n")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tree), str(tmp_path / "home")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "0", "1", "-9"], done.stderr
    assert (tree / "serve_app" / "a.py").read_text() == "def f(a):\n    return a < 3\n"
