"""Traces: spans of what a job goes through, in all processes, for a collector of OpenTelemetry.

Off unless `configure` was given somewhere to send them to. Then nothing of OpenTelemetry is
imported, and every function here is one look at `_recorder`.

What joins the spans of a trace is a `traceparent` (W3C Trace Context) among what log lines carry
(`serve_app.telemetry.logging`): a span takes its parent from there and stands there itself for what
it encloses. So a trace goes wherever the log context goes, to other processes too, and every line
names its span.
"""

import re
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

import structlog

from serve_app.config import LoggingConfig

if TYPE_CHECKING:
    from serve_app.telemetry.recorder import Recorder

__all__ = [
    "Kind",
    "Marks",
    "carried",
    "configure",
    "current",
    "record",
    "span",
    "use",
]

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool
Marks = MutableMapping[str, Value]
"""Attributes of a span; `error.type` among them makes it a failure."""

_WELL_FORMED = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_recorder: "Recorder | None" = None


def configure(config: LoggingConfig) -> None:
    """Send the spans of this process to where the settings say; nowhere: make none.

    Raises:
        ImportError: the packages of the extra `otel` are not installed.
    """
    if config.traces_url is None:
        use(None)
        return
    # Some tenths of a second, and optional packages: only for those who want traces.
    from serve_app.telemetry.recorder import exporting  # noqa: PLC0415

    use(exporting(config.traces_url))


def use(recorder: "Recorder | None") -> None:
    """Record the spans of this process with this recorder; None: make none."""
    global _recorder  # noqa: PLW0603  # of the process, as the configuration of its logs is
    _recorder = recorder


def span(name: str, kind: Kind = "internal", /, **marks: Value) -> AbstractContextManager[Marks]:
    """Surround a piece of work; what it raises is the error of its span.

    marks: attributes of ours. Call, job and model are added from the log context. Gives all of
    them, by their full names; more may be added until the span ends.
    """
    if _recorder is None:
        return _NOTHING
    return _recorder.span(name, kind, _ours(marks))


def record(name: str, began: float, ended: float, /, **marks: Value) -> None:
    """Record a piece of work that is over; times are of the monotonic clock."""
    if _recorder is not None:
        _recorder.record(name, began, ended, _ours(marks))


def carried(traceparent: str) -> dict[str, str]:
    """Return what to put into the log context for spans to belong to a caller's; {}: nothing.

    What is not well-formed is left out: the caller is a stranger.
    """
    if _recorder is None or not _WELL_FORMED.fullmatch(traceparent):
        return {}
    return {"traceparent": traceparent}


def current() -> str:
    """Return the `traceparent` of the span around the caller; empty: there is none."""
    if _recorder is None:
        return ""
    return str(structlog.contextvars.get_contextvars().get("traceparent", ""))


def _ours(marks: Mapping[str, Value]) -> Marks:
    return {f"dreamserve.{name}": value for name, value in marks.items()}


class _Nothing:
    """Surrounds work while there are no traces."""

    def __enter__(self) -> Marks:
        return {}

    def __exit__(self, *_error: object) -> None:
        pass


_NOTHING = _Nothing()
