"""`Reach`: which tests run which lines, and how long they take; measured once per test file."""

import ast
import hashlib
import json
from collections import defaultdict
from pathlib import Path

import coverage

from tests.mutants.operators import Mutant
from tests.mutants.sandbox import FAST, Sandbox

__all__ = ["Chosen", "Reach", "measure", "records"]

_ALSO = {"pipelines": ["tests/engine"]}  # beside the folders that are named after a room
_LIMIT_S = 240  # for one test file
# With greenlets coverage sees into strands, but never ends where much garbage is collected.
_CONCURRENCY = (("thread", "greenlet"), ("thread",))
_NOTHING: dict[str, dict] = {"tests": {}, "lines": {}}


class _Recorder:
    """Notes, inside a run of pytest, the lines of `serve_app` that each test runs."""

    def __init__(self, target: Path, concurrency: tuple[str, ...]) -> None:
        self._target, self._passed = target, {}
        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, include=["serve_app/*"],
            concurrency=[*concurrency],
        )  # fmt: skip

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "setup":
            self._passed[report.nodeid] = 0.0
        if report.passed and report.nodeid in self._passed:
            self._passed[report.nodeid] += report.duration
        else:
            self._passed.pop(report.nodeid, None)

    def at_end(self) -> None:
        self._coverage.stop()
        data, places = self._coverage.get_data(), {}
        order = {name: place for place, name in enumerate(self._passed)}
        for file in data.measured_files():
            lines = data.contexts_by_lineno(file)
            masks = {
                line: sum(1 << order[name] for name in names if name in order)
                for line, names in lines.items()
            }
            path = str(Path(file).relative_to(Path.cwd()))
            places[path] = {line: f"{mask:x}" for line, mask in masks.items()}
        self._target.write_text(json.dumps({"tests": self._passed, "lines": places}))


class Chosen:
    """Leaves only these tests of a run, file by file; None: all."""

    def __init__(self, names: list[str] | None) -> None:
        self._names = names

    def pytest_collection_modifyitems(self, items) -> None:
        if self._names is None:
            return
        names, files = set(self._names), [name.partition("::")[0] for name in self._names]
        rank = {file: place for place, file in reversed(list(enumerate(files)))}
        items[:] = [item for item in items if item.nodeid in names]
        items.sort(key=lambda item: rank[item.nodeid.partition("::")[0]])

    def at_end(self) -> None:
        """Do nothing."""


def _digest(paths: list[Path]) -> str:
    texts = b"".join(path.read_bytes() for path in sorted(paths))
    return hashlib.sha256(texts).hexdigest()[:16]


def records(root: Path, rooms: list[str]) -> dict[str, Path]:
    """Return, for each test file of these rooms, where its measurement lies.

    Other code or another test file, another place.
    """
    place = root / "build" / "mutants" / _digest(list((root / "serve_app").rglob("*.py")))
    folders = [folder for room in rooms for folder in _folders(room)]
    found = {path for folder in folders for path in (root / folder).rglob("test_*.py")}
    names = {str(path.relative_to(root)): path for path in found}
    return {
        name: place / f"{name.replace('/', '-')}.{_digest([names[name]])}.json"
        for name in sorted(names)
    }


def _folders(room: str) -> list[str]:
    return [f"tests/unit/{room}", f"tests/{room}", *_ALSO.get(room, [])]


def measure(sandbox: Sandbox, file: str, record: Path) -> None:
    """Run the fast tests of a file and keep what those reach that pass without a fault."""
    record.parent.mkdir(parents=True, exist_ok=True)
    for concurrency in _CONCURRENCY:
        status, text = sandbox.run([*FAST, file], _Recorder(record, concurrency), _LIMIT_S)
        if status != -9:
            break
    if status not in (0, 5):
        print(f"fails in part without a fault: {file}\n{text[-2000:]}", flush=True)
    if not record.exists():
        record.write_text(json.dumps(_NOTHING))


class Reach:
    """What `measure` found, for choosing; tests that were not measured are none."""

    def __init__(self, root: Path, places: dict[str, Path]) -> None:
        self._seconds: dict[str, float] = {}
        self._names: list[list[str]] = []  # of each test file
        self._masks = defaultdict(lambda: defaultdict(list))  # by path and line: (file, its tests)
        self._importers: dict[str, set[str]] = defaultdict(set)
        for number, (file, place) in enumerate(places.items()):
            record = json.loads(place.read_text()) if place.exists() else _NOTHING
            self._names.append(list(record["tests"]))
            self._seconds |= record["tests"]
            for path, lines in record["lines"].items():
                for line, mask in lines.items():
                    self._masks[path][int(line)].append((number, int(mask, 16)))
            for module in _imported(root / file):
                self._importers[module] |= set(record["tests"])

    def nearest(self, mutant: Mutant, limit_s: float) -> list[str]:
        """Return tests that run its line, else its function; of what runs at import, its room's.

        Those come first that name its module, then others of its room, each the quickest first.
        """
        found = self._of(mutant.path, mutant.lines) or self._of(mutant.path, mutant.function)
        module = mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        direct = self._importers[module]
        near = tuple(f"{folder}/" for folder in _folders(mutant.path.split("/")[1]))
        if not found or mutant.function.start == 1:  # nobody saw it run
            found |= direct | {name for name in self._seconds if name.startswith(near)}

        def rank(name: str) -> tuple[bool, bool, float]:
            return name not in direct, not name.startswith(near), self._seconds[name]

        return self._within(sorted(found, key=rank), limit_s)

    def seconds(self, names: list[str]) -> float:
        """Return how long these tests took."""
        return sum(self._seconds[name] for name in names)

    def _within(self, names: list[str], limit_s: float) -> list[str]:
        chosen, spent = [], 0.0
        for name in names:
            spent += self._seconds[name]
            if chosen and spent > limit_s:
                break
            chosen.append(name)
        return chosen

    def _of(self, path: str, lines: range) -> set[str]:
        masks: dict[int, int] = defaultdict(int)
        for line in lines:
            for number, mask in self._masks[path].get(line, ()):
                masks[number] |= mask
        return {
            name
            for number, mask in masks.items()
            for place, name in enumerate(self._names[number])
            if mask >> place & 1
        }


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
