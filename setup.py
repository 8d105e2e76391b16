"""What `pyproject.toml` cannot say: a wheel takes the demo models along, for `dreamserve demo`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_ROOT = Path(__file__).parent
_FOLDERS = ("checkpoints", "examples/inpaint", "configs/models")


class BuildWithDemo(build_py):
    """Copies the demo into the package `serve_app`, where `serve_app.cli.bundle` looks for it."""

    def run(self) -> None:
        """Build the modules, then copy; a container image that has no demo does without."""
        super().run()
        target = Path(self.build_lib) / "serve_app" / "demo"
        for folder in _FOLDERS:
            if not self.editable_mode and (_ROOT / folder).is_dir():
                ignored = shutil.ignore_patterns("gpu")
                shutil.copytree(_ROOT / folder, target / folder, ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithDemo})
