"""Every block of the pages with examples, executed as a reader would, against a real service."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
PAGES = [(ROOT / "docs" / name).read_text("utf-8") for name in ("examples.md", "polling.md")]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", "\n".join(PAGES), re.MULTILINE | re.DOTALL)
MODEL = json.loads((ROOT / "examples" / "inpaint" / "request.json").read_text())["model_id"]
COMMANDS = {
    "sh": ["bash", "-euo", "pipefail", "example.sh"],
    "python": [sys.executable, "example.py"],
    "javascript": ["node", "example.mjs"],
}


def test_pages_have_examples_in_every_language():
    assert {language for language, _ in BLOCKS} == set(COMMANDS)
    assert all(MODEL in text or "model_list" in text for _, text in BLOCKS)


@pytest.mark.parametrize(
    ("language", "text"), BLOCKS, ids=[f"{i}-{block[0]}" for i, block in enumerate(BLOCKS)]
)
def test_example_does_what_the_page_says(service, tmp_path, language, text):
    if shutil.which(COMMANDS[language][0]) is None:
        pytest.skip(f"{COMMANDS[language][0]} is not installed")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    text = text.replace("http://127.0.0.1:8000", service.base_url).replace(f'"{MODEL}"', '"tiny"')
    (tmp_path / COMMANDS[language][-1]).write_text(text)
    done = subprocess.run(
        COMMANDS[language],
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/files/generations/" in done.stdout or "model_ready" in done.stdout, done.stdout
    assert "error" not in done.stdout
    if "picture.png" in text:
        Image.open(tmp_path / "picture.png").verify()
