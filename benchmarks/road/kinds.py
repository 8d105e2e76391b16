"""Where the Python of a process spends its time: stacks sampled by `py-spy`, by kind of work.

Of a process only the thread that holds the interpreter is sampled: which threads are idle `py-spy`
cannot tell on every kernel, and those would be most of all samples.
"""

import re
import subprocess
from collections import Counter
from pathlib import Path

__all__ = ["Sampler", "kind_of", "shares"]

# The innermost frame that one of them knows decides, so that what a library calls is its own.
_KINDS = (
    ("PNG", r"/PIL/|images/png"),
    ("SQL", r"sqlalchemy|aiosqlite|sqlite3|psycopg|serve_app/database"),
    ("JSON and pydantic", r"pydantic|/json/|orjson|requests/schemas|replies/"),
    ("logging", r"structlog|/logging/|telemetry/logging"),
    ("metrics", r"metric|opentelemetry|prometheus|telemetry/"),
    ("pickling", r"cloudpickle|/pickle\.py|ray/_private/serialization|msgpack"),
    ("HTTP", r"uvicorn|starlette|fastapi|h11|httptools|serve_app/api|_private/proxy|http_util"),
    ("Ray handle calls", r"ray/serve/(_private/(router|request_router|replica_result)|handle)"),
    ("Ray Serve's replica", r"ray/serve"),
    ("Ray", r"ray/"),
    ("job life", r"serve_app/|deployments/"),
)  # fmt: skip
_REST = "event loop and rest"
_RULES = tuple((kind, re.compile(pattern)) for kind, pattern in _KINDS)


class Sampler:
    """Samples a process while something else happens."""

    def __init__(self, pid: int, seconds: float, file: Path, rate_hz: int = 200) -> None:
        """Start; raises FileNotFoundError where `py-spy` is not installed."""
        self._file = file
        self._process = subprocess.Popen(
            [
                *("py-spy", "record", "--gil", "--pid", str(pid), "--duration", f"{seconds:.0f}"),
                *("--rate", str(rate_hz), "--format", "raw", "--output", str(file)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stacks(self) -> Counter[str]:
        """Wait for the end; return how often each stack was met, outermost frame first."""
        self._process.wait()
        found: Counter[str] = Counter()
        for line in self._file.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            found[stack] += int(count)
        return found


def kind_of(stack: str) -> str:
    """Name the work of a stack: frames `name (file:line)`, joined by semicolons."""
    for frame in reversed(stack.split(";")):
        for kind, pattern in _RULES:
            if pattern.search(frame):
                return kind
    return _REST


def shares(stacks: Counter[str]) -> dict[str, float]:
    """Return the share of samples of each kind, the largest first."""
    by_kind: Counter[str] = Counter()
    for stack, count in stacks.items():
        by_kind[kind_of(stack)] += count
    whole = by_kind.total() or 1
    return {kind: count / whole for kind, count in by_kind.most_common()}
