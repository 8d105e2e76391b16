"""The README's first command, as a newcomer runs it, on a cluster of its own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

pytestmark = [pytest.mark.ray, pytest.mark.slow]
DREAMSERVE = "from serve_app.cli import main; main()"
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


def addresses_until_it_ends(process: subprocess.Popen[bytes]) -> dict[str, set[str]]:
    """Where the process and those that it started have listened, by their names."""
    seen: dict[str, set[str]] = defaultdict(set)
    family = psutil.Process(process.pid)
    while process.poll() is None:
        names = {}
        for one in family.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                names[one.pid] = one.name()
        for socket in psutil.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN and socket.pid in names:
                seen[names[socket.pid]].add(socket.laddr.ip)
        time.sleep(1)
    return seen


def assert_all_is_closed(seen: dict[str, set[str]], data_dir: Path) -> None:
    """To other machines by where everything listens, to other users of this one by the token."""
    names = " ".join(name for name, addresses in seen.items() if addresses)
    assert all(part in names for part in ("gcs_server", "raylet", "ProxyActor", "ServeRepli"))
    assert set().union(*seen.values()) <= {"127.0.0.1", "::ffff:127.0.0.1"}, seen
    (token,) = (data_dir / "run").glob("ray-token-*")
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.timeout(560)
def test_demo_writes_its_files_and_leaves_no_process(tmp_path, starting):
    data_dir = tmp_path / "var"
    environment = {**os.environ, "DREAMSERVE_DATA_DIR": str(data_dir)}
    environment.pop("RAY_AUTH_MODE", None)
    with starting, (tmp_path / "demo.log").open("wb") as log:
        demo = subprocess.Popen(
            [sys.executable, "-c", DREAMSERVE, "demo", "--out", tmp_path],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
        seen = addresses_until_it_ends(demo)
    assert demo.returncode == 0, (tmp_path / "demo.log").read_text()
    assert processes_of(data_dir) == []
    assert_all_is_closed(seen, data_dir)

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
