"""`Sandbox`: a copy of the tree, in which tests run beside a fault that nobody has to take back."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import pytest

__all__ = ["FAST", "PRELOADED", "Sandbox"]

_COPIED = ("serve_app", "deployments", "benchmarks", "training", "tests")
# Most of a test run's start is the import of these. Nothing of ours, and no plugins of pytest.
PRELOADED = (
    "fastapi", "fastapi.testclient", "sqlalchemy.ext.asyncio", "alembic.command", "httpx2", "numpy",
    "PIL.Image", "orjson", "structlog", "prometheus_client", "yaml", "cachetools", "limits",
    "pydantic_settings", "scipy.ndimage", "typer", "rich", "torch", "safetensors.torch",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint",
    "diffusers.pipelines.controlnet.pipeline_controlnet", "peft",
)  # fmt: skip
_HERE = "not ray and not gpu and not ops and not browser and not chaos and not postgres"
FAST = ("-m", f"{_HERE} and not slow and not long")  # the tests that have to notice a fault
_OPTIONS = (
    "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=60",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
    "-m", _HERE,
)  # fmt: skip


class Sandbox:
    """Runs tests in forks of this process, which has imported the libraries already."""

    def __init__(self, root: Path, home: Path, preloaded: tuple[str, ...] = PRELOADED) -> None:
        self.home = home
        home.mkdir(parents=True)
        for entry in root.iterdir():
            if entry.name in _COPIED:
                shutil.copytree(entry, home / entry.name)
            elif entry.is_dir() and entry.name not in (".venv", ".git", "build", "out", "var"):
                (home / entry.name).symlink_to(entry)
            elif entry.is_file() and entry.name != ".git":
                shutil.copy2(entry, home / entry.name)
        sys.path[:] = [str(home), *(path for path in sys.path if Path(path).resolve() != root)]
        os.chdir(home)
        sys.dont_write_bytecode = True  # of a file with a fault
        os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path[:1])}
        for name in preloaded:
            import_module(name)

    @contextmanager
    def changed(self, path: str, change: Callable[[bytes], bytes]):
        """Hold a file in a changed state; its time is put back, so that its bytecode is valid."""
        file = self.home / path
        source, state = file.read_bytes(), file.stat()
        file.write_bytes(change(source))
        try:
            yield
        finally:
            file.write_bytes(source)
            os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    def run(self, args: list[str], plugin, limit_s: float) -> tuple[int, str]:
        """Return pytest's exit status and what it printed; -9 and "" beyond the time."""
        output = self.home / "pytest.txt"
        pid = os.fork()
        if pid == 0:
            self._be_pytest(args, plugin, output)
        ends_at, status = time.monotonic() + limit_s, None
        while status is None and time.monotonic() < ends_at:
            done, code = os.waitpid(pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what the tests started, too
        if status is None:
            os.waitpid(pid, 0)
            return -9, ""
        return status, output.read_text(errors="replace")

    def _be_pytest(self, args: list[str], plugin, output: Path) -> None:
        status = 99
        try:
            os.setsid()
            for name in [one for one in sys.modules if one.split(".")[0] in _COPIED]:
                del sys.modules[name]
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = int(pytest.main([*_OPTIONS, "--rootdir=.", *args], plugins=[plugin]))
            plugin.at_end()
        finally:
            sys.stdout.flush()
            os._exit(status)
