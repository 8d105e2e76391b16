"""`Recent`: jobs and callers as last seen here, for when the database does not answer for a while.

A job that was alive then is alive for all that is known: whoever drives it goes on and writes its
end when the database is back. A client that polls should hear that, not an error.
"""

import hashlib
import time
from collections import OrderedDict
from typing import Generic, TypeVar

from serve_app.types import Job

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")

_MAX_JOBS = 4096
_MAX_KEYS = 1024
_KEPT_S = 900.0


class Recent:
    """Bounded; what is old is forgotten."""

    def __init__(self) -> None:
        self._jobs: _Kept[int, Job] = _Kept(_MAX_JOBS)
        self._keys: _Kept[bytes, str] = _Kept(_MAX_KEYS)

    def see(self, job: Job) -> Job:
        """Remember a job as it is now, and return it."""
        self._jobs.put(job.id, job)
        return job

    def job(self, job_id: int) -> Job | None:
        """Return a job as last seen, if that is not too long ago."""
        return self._jobs.get(job_id)

    def see_key(self, secret: str, key_id: str) -> None:
        """Remember whose secret this is, by its hash."""
        self._keys.put(_digest(secret), key_id)

    def key_id(self, secret: str) -> str | None:
        """Return whose secret it was when last seen."""
        return self._keys.get(_digest(secret))


class _Kept(Generic[K, V]):
    """The latest values by name, for a while."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def put(self, name: K, value: V) -> None:
        self._values[name] = (time.monotonic(), value)
        self._values.move_to_end(name)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def get(self, name: K) -> V | None:
        at, value = self._values.get(name, (0.0, None))
        return value if value is not None and time.monotonic() - at < _KEPT_S else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
