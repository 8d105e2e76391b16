"""`Tally`: errors that clients were told, counted by code, call and key.

One per process, as logs and traces are: refusals happen in the middleware, failures in the driver.
"""

from collections import Counter
from collections.abc import Mapping

from serve_app import errors

__all__ = ["ERRORS", "JOB", "NOBODY", "NO_CALL", "NO_PATH", "Tally"]

JOB = "job"
"""The call of failures that a job ended with, however its client hears of them."""
NOBODY = "none"
"""The key of calls that came without a valid one."""
NO_PATH = "unknown"
"""The call of those that are refused before their path is looked at, or have none that exists."""
NO_CALL = "no_such_call"
"""The code of a path that does not exist, or of another method."""
_OTHERS = "other"
_CODES = {
    one.code
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, errors.DreamserveError)
}


class Tally:
    """Counts since the process began; every code is there from the start.

    max_keys: keys that are told apart, those that came first; the others are counted together.
    """

    def __init__(self, max_keys: int = 100) -> None:
        self.max_keys = max_keys
        self._keys: set[str] = set()
        self._counts = Counter({(code, NO_PATH, NOBODY): 0 for code in (*_CODES, NO_CALL)})

    def add(self, code: str, call: str, key_id: str = NOBODY) -> None:
        """Count an error.

        call: the template of its path, or `JOB`. key_id: never the key itself.
        """
        if key_id not in self._keys and len(self._keys) >= self.max_keys and key_id != NOBODY:
            key_id = _OTHERS
        elif key_id != NOBODY:
            self._keys.add(key_id)
        self._counts[code, call, key_id] += 1

    @property
    def errors(self) -> Mapping[tuple[str, str, str], int]:
        """Counts by code, call and key."""
        return self._counts


ERRORS = Tally()
