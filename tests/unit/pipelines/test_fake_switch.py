"""`engine.painter: fake` serves without weights and without torch."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serve_app import errors
from serve_app.images.codec import to_image
from serve_app.pipelines import FakePainter
from serve_app.pipelines.compose import encode
from serve_app.types import ControlNetUse, PreparedImages
from tests.builders import spec

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


def test_fake_painter_has_no_weights():
    assert FakePainter().weight_bytes() == 0


async def test_fake_picture_is_one_colour_with_a_little_noise():
    painter = FakePainter()
    for seed in range(20):
        made = await painter.paint(seed, spec(height=64, width=64, seed=seed), None)
        pixels = np.asarray(to_image(made.pictures[0])).reshape(-1, 3).astype(int)
        assert 16 < np.ptp(pixels, axis=0).max() < 32
    painter.close()


def test_one_module_of_the_service_looks_at_the_setting():
    """The other looks whether there are weights to check before Ray starts."""
    root = Path(__file__).parents[3]
    files = [path for room in ("serve_app", "deployments") for path in (root / room).rglob("*.py")]
    asking = [path for path in files if re.search(r"\.painter [!=]=", path.read_text())]
    rooms = {path.relative_to(root / "serve_app").as_posix() for path in asking}
    assert rooms == {"cli/preflight.py", "replica/factory.py"}


async def test_fake_painter_paints_by_the_control_pictures_that_act():
    grey, white = (encode(np.full((64, 64, 3), value, np.uint8)) for value in (99, 255))

    async def paint(scale, picture):
        use = ControlNetUse(id="net", scale=scale)
        images = PreparedImages(controls=(picture,))
        return (await FakePainter().paint(1, spec(controlnets=(use,)), images)).pictures[0].data

    assert await paint(1, grey) != await paint(1, white)
    assert await paint(0, grey) == await paint(0, white)
    with pytest.raises(errors.InvalidRequest) as caught:
        await FakePainter().paint(1, spec(controlnets=(ControlNetUse(id="net", scale=1),)), None)
    assert caught.value.field == "control_image"
