import gc
import subprocess
import sys

import pytest

from serve_app.imports import heavy_imports

# What the process does, and at its end whether garbage is collected and how much is kept out of it.
FACTORY = """
from pathlib import Path
from serve_app.config import EngineConfig
from serve_app.replica.factory import painter_factory
made = painter_factory(EngineConfig())
for _ in range(2):
    made.check(Path("nowhere"))
    kept.append(gc.get_freeze_count())
"""
CHECKER = """
from pathlib import Path
from serve_app import errors
from serve_app.safety.diffusers_checker import DiffusersChecker
for _ in range(2):
    try:
        DiffusersChecker(Path("nowhere"))
    except errors.SafetyCheckFailed:
        kept.append(gc.get_freeze_count())
"""


@pytest.fixture(autouse=True)
def _thaw():
    """What is frozen here is nobody else's business."""
    yield
    gc.unfreeze()


def test_heavy_imports_are_made_without_collector_and_kept_out_of_its_way():
    gc.unfreeze()
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_imports_that_fail_leave_the_collector_as_it_was():
    gc.unfreeze()
    with pytest.raises(ImportError), heavy_imports():
        raise ImportError("no such library")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with heavy_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(FACTORY, id="painter"),
                                  pytest.param(CHECKER, id="safety")])  # fmt: skip
def test_process_that_paints_or_checks_imports_so_and_only_once(code):
    code = f"import gc\nkept = []\n{code}\nprint(gc.isenabled(), *kept)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    is_enabled, first, second = done.stdout.split()
    assert is_enabled == "True"
    assert int(first) > 300_000
    assert int(second) == int(first)
