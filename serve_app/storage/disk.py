"""`DiskStore`: files in one folder of one machine.

All file work goes through descriptors of opened folders, never through joined paths, and follows no
symbolic link: whatever somebody puts into the folder, nothing outside it is read or written.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from serve_app import errors
from serve_app.storage import names

__all__ = ["DiskStore"]

T = TypeVar("T")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PART_PREFIX = ".part-"
_PART_AGE_S = 3600.0  # a part file this old was left by a process that died


class DiskStore:
    """Implements `storage.protocol.ObjectStore`; any number of processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, data: bytes, media_type: str) -> None:  # noqa: ARG002
        """Write a file; see the protocol. The media type is in the name."""
        folder, name = names.check(key)
        await _in_thread(lambda: self._put(folder, name, data))

    async def get(self, key: str) -> bytes | None:
        """Read a file; see the protocol."""
        if not names.is_key(key):
            return None
        folder, name = names.check(key)
        return await _in_thread(lambda: self._get(folder, name))

    async def delete(self, key: str) -> None:
        """Remove a file; see the protocol."""
        folder, name = names.check(key)
        await _in_thread(lambda: self._delete(folder, name))

    async def expire(self, folder: str, older_than_s: float) -> int:
        """Remove old files of a folder; see the protocol."""
        names.check(f"{folder}/any")
        return await _in_thread(lambda: self._expire(folder, older_than_s))

    async def url(self, key: str, base_url: str, ttl_s: float | None = None) -> str:  # noqa: ARG002
        """Link to a file under `/files/`; see the protocol. It ends when the file does."""
        names.check(key)
        return f"{base_url.rstrip('/')}/files/{key}"

    async def ensure_lifecycle(self) -> None:
        """Do nothing; see the protocol. Only `expire` ends files here."""

    @contextmanager
    def _open_folder(self, folder: str) -> Iterator[int]:
        """Open a folder of the store; made where it is missing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(self._folder, _FOLDER_FLAGS & ~os.O_NOFOLLOW)  # the operator may link it
        try:
            for part in folder.split("/"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, mode=0o755, dir_fd=opened)
                below = os.open(part, _FOLDER_FLAGS, dir_fd=opened)
                os.close(opened)
                opened = below
            yield opened
        finally:
            os.close(opened)

    def _put(self, folder: str, name: str, data: bytes) -> None:
        part = f"{_PART_PREFIX}{uuid4()}"
        with self._open_folder(folder) as parent:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with open(os.open(part, flags, 0o644, dir_fd=parent), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:  # a full disk must not stay full of half files
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=parent)
                raise
            os.fsync(parent)  # the name, too, survives a power cut

    def _get(self, folder: str, name: str) -> bytes | None:
        with self._open_folder(folder) as parent:
            try:
                opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            except FileNotFoundError:
                return None
            with open(opened, "rb") as file:
                return file.read()

    def _delete(self, folder: str, name: str) -> None:
        with self._open_folder(folder) as parent, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)

    def _expire(self, folder: str, older_than_s: float) -> int:
        with self._open_folder(folder) as parent:
            return _expire_in(parent, older_than_s, time.time())


def _expire_in(parent: int, older_than_s: float, now: float) -> int:
    """Remove old files of an open folder and of those below it, which prefixes have made."""
    num_removed = 0
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below = os.open(entry.name, _FOLDER_FLAGS, dir_fd=parent)
                try:
                    num_removed += _expire_in(below, older_than_s, now)
                finally:
                    os.close(below)
                continue
            is_part = entry.name.startswith(_PART_PREFIX)
            try:
                age_s = now - entry.stat(follow_symlinks=False).st_mtime
                if age_s > (_PART_AGE_S if is_part else older_than_s):
                    os.unlink(entry.name, dir_fd=parent)
                    num_removed += not is_part
            except FileNotFoundError:  # another process was faster
                continue
    return num_removed


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking file work beside the event loop."""
    try:
        return await asyncio.to_thread(work)
    except OSError as exc:
        raise errors.StorageUnavailable(f"{type(exc).__name__}: {exc.strerror}") from exc
