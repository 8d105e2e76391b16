"""`RowCapStore`: measured row caps, kept on disk so that the next start need not measure."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from serve_app.engine.row_caps import Size

__all__ = ["RowCapStore"]

_log = structlog.get_logger()


class RowCapStore:
    """The caps of one architecture on one kind of device.

    Args:
        folder: of all such files; made when needed.
        holds_for: everything that a cap depends on; the file's name is a digest of it.
    """

    def __init__(self, folder: Path, holds_for: Mapping[str, object]) -> None:
        text = json.dumps(holds_for, sort_keys=True, default=str)
        self._holds_for = json.loads(text)
        self._path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def read(self) -> dict[Size, int]:
        """Read what was kept; nothing where there is no file or it is damaged."""
        try:
            caps = json.loads(self._path.read_text(encoding="utf-8"))["caps"]
            return {(str(lane), int(size)): int(cap) for lane, size, cap in caps}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            _log.warning("row_caps_unreadable", path=str(self._path), error=str(exc))
            return {}

    def add(self, measured: Mapping[Size, int]) -> None:
        """Keep these caps beside those of other replicas. A full or read-only disk is no error.

        The file is replaced as a whole. Of two replicas that write at once one may lose its new
        caps, and measures them again after its next start.
        """
        kept = self.read() | dict(measured)
        caps = [[lane, size, cap] for (lane, size), cap in sorted(kept.items())]
        text = json.dumps({"holds_for": self._holds_for, "caps": caps}, indent=1)
        try:
            self._replace(text)
        except OSError as exc:
            _log.warning("row_caps_not_kept", path=str(self._path), error=str(exc))

    def _replace(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self._path)
        except OSError:
            Path(name).unlink()  # a full disk gets no fuller
            raise
