"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DEFAULT_CONFIG", "ConfigPath"]

ConfigPath = Annotated[Path, typer.Option(help="Serve config file")]
DEFAULT_CONFIG = Path("configs/dev.yaml")
