"""`engine.painter: fake` serves without weights and without torch."""

import subprocess
import sys

CODE = """
import sys
from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines import FakePainter
from serve_app.testing.painter import load_painter
entry = ModelEntry(id="fake", source="nothing", kinds=("inpaint",))
painter = load_painter(entry, EngineConfig(painter="fake"))
print(isinstance(painter, FakePainter), "torch" in sys.modules)
"""


def test_fake_painter_is_chosen_by_the_settings_and_imports_no_torch():
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
