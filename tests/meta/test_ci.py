"""What CI runs, on machines that have what a part of the tests needs, and on those that do not."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
TARGETS = ["make check", "make test", "make test-slow", "make test-browser"]
SHELL = ("bash", "dirname", "mktemp", "rm", "timeout")
INSTALLS = ("download prometheus", "install --no-install-recommends chromium")


@pytest.fixture
def run(tmp_path):
    """Run the script where there is nothing but the shell and stubs; return what was called."""

    def run(*there: str, fails: tuple[str, ...] = ()) -> list[str]:
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in SHELL:
            found = shutil.which(name)
            assert found, name
            (tools / name).symlink_to(found)
        calls = tmp_path / "calls"
        for name in there:
            stub = tools / name
            stub.write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\nexit {int(name in fails)}\n')
            stub.chmod(0o755)
        environment = {"PATH": str(tools), "TMPDIR": str(tmp_path), "CI": "true"}
        done = subprocess.run(
            [str(tools / "bash"), str(SCRIPT)],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        self_made = [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp.")]
        assert self_made == [], "the folder for tools is gone again"
        assert (done.returncode == 0) is ("make" not in fails), done.stderr
        return calls.read_text().splitlines()

    return run


def test_what_is_there_is_not_installed(run):
    assert run("make", "promtool", "chromium", "apt-get") == TARGETS


def test_what_is_missing_is_installed_before_the_tests(run):
    calls = run("make", "apt-get", "dpkg", "node", "npm")
    assert calls[-4:] == TARGETS
    for words in (*INSTALLS, "openai@6"):
        assert any(call.endswith(f" {words}") for call in calls), words


@pytest.mark.parametrize("has_tools", [False, True], ids=["no tools", "tools that fail"])
def test_what_cannot_be_had_keeps_nothing_from_running(run, has_tools):
    tools = ("apt-get", "node", "npm") if has_tools else ()
    assert run("make", *tools, fails=tools)[-4:] == TARGETS


def test_target_that_fails_fails_the_run(run):
    assert run("make", "promtool", "chromium", fails=("make",)) == TARGETS[:1]


def test_everything_that_is_installed_has_a_bound_in_time():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    installs = [line.strip() for line in lines if "apt-get -q" in line or "npm install" in line]
    assert len(installs) == 4
    assert all("timeout " in line for line in installs)
