"""The token that guards the Ray cluster of `dreamserve run`: made for each run, found by `top`.

Whoever has it can run any code as the service. It lies in a file that only its owner can read, and
Ray's processes are told the path: the token itself is in no command, environment or log.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

__all__ = ["environment", "find", "make"]

_NAME = "ray-token-{port}"


def make(folder: Path, port: int) -> Path:
    """Write a fresh token for the service on this port, and name its file."""
    file = folder / _NAME.format(port=port)
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_hex(32))
    return file


def find(folder: Path) -> Path | None:
    """Name the newest token file, which is that of the cluster that Ray calls `auto`."""
    files = folder.glob(_NAME.format(port="*"))
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


def environment(file: Path) -> Mapping[str, str]:
    """What tells Ray to ask for the token, and to send it."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file.resolve())}
