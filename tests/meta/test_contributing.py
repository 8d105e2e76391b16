"""`CONTRIBUTING.md` names what there is."""

import re
from pathlib import Path

from tests.meta.test_layers import LAYERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LAYER_NAMES = {
    str(layer): {
        name.replace(".", "/")
        for name, its in LAYERS.items()
        if its == layer and name != "serve_app"
    }
    for layer in range(1, 9)
}


def test_every_path_exists():
    # A slash or the ending of a file makes a code span a path; the rest are names and commands.
    spans = re.findall(r"`([\w./-]+)`", PAGE)
    paths = [span for span in spans if "/" in span or span.endswith((".py", ".md", ".yaml"))]
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_tests_that_recipes_run_exist():
    commands = re.findall(r"`pytest ([^`]+)`", PAGE)
    assert len(commands) == len(re.findall(r"^### Add an? ", PAGE, flags=re.MULTILINE))
    assert [path for line in commands for path in line.split() if not (ROOT / path).exists()] == []


def test_layers_are_those_of_the_layer_test():
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", PAGE, flags=re.MULTILINE)
    named = {layer: set(re.findall(r"`([\w/.]+)`", rooms)) for layer, rooms in rows}
    assert {
        layer: {room.removesuffix(".py") for room in rooms} for layer, rooms in named.items()
    } == LAYER_NAMES


def test_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`?make ([a-z-]+)", PAGE)
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
