"""The README's first command, as a newcomer runs it, on a cluster of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "inpaint"


def processes_of(data_dir: Path) -> list[str]:
    """Processes that carry this test's own folder in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DREAMSERVE_DATA_DIR") == str(data_dir):
                found.append(process.name())
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(240)
def test_demo_writes_its_files_and_leaves_no_process(tmp_path):
    data_dir = tmp_path / "var"
    done = subprocess.run(
        [sys.executable, "-c", "from serve_app.cli import main; main()", "demo", "--out", tmp_path],
        cwd=ROOT,
        env={**os.environ, "DREAMSERVE_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert processes_of(data_dir) == []

    answer = json.loads((tmp_path / "response.json").read_text())
    request = json.loads((EXAMPLE / "request.json").read_text())
    assert answer["status"] == "success"
    assert (answer["meta"]["W"], answer["meta"]["H"]) == (512, 512)
    assert answer["meta"]["model_id"] == request["model_id"]

    init, result = (
        np.asarray(Image.open(path).convert("RGB"))
        for path in (EXAMPLE / "init.png", tmp_path / "result.png")
    )
    keep = np.asarray(Image.open(EXAMPLE / "mask.png").convert("L")) < 128
    assert result.shape == (512, 512, 3)
    assert np.array_equal(init[keep], result[keep])
    assert not np.array_equal(init[~keep], result[~keep])
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape[1] > 3 * 512
