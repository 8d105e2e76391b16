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

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGES = {
    name: re.findall(
        r"^```(\w+)\n(.*?)^```",
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    for name in ("examples", "polling", "events", "openai")
}
BLOCKS = [(name, *block) for name, blocks in PAGES.items() for block in blocks]
MODEL = json.loads((ROOT / "examples" / "inpaint" / "request.json").read_text())["model_id"]
COMMANDS = {
    "sh": ["bash", "-euo", "pipefail", "example.sh"],
    "python": [sys.executable, "example.py"],
    "javascript": ["node", "example.mjs"],
}


@pytest.mark.parametrize("blocks", PAGES.values(), ids=PAGES)
def test_page_has_examples_in_every_language(blocks):
    languages = {language for language, _ in blocks}
    assert languages == set(COMMANDS) or blocks == PAGES["polling"]  # one loop says it all
    assert all(MODEL in text or '"demo"' in text or "model_list" in text for _, text in blocks)


@pytest.mark.parametrize(
    ("language", "text"),
    [block[1:] for block in BLOCKS],
    ids=[f"{i}-{name}-{language}" for i, (name, language, _) in enumerate(BLOCKS)],
)
def test_example_does_what_the_page_says(service, tmp_path, language, text):
    if shutil.which(COMMANDS[language][0]) is None:
        pytest.skip(f"{COMMANDS[language][0]} is not installed")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    text = text.replace("http://127.0.0.1:8000", service.base_url).replace(f'"{MODEL}"', '"tiny"')
    text = text.replace('"model_id": "demo"', '"model_id": "tiny"')
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
