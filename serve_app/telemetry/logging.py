"""Structured logs of every process: JSON lines with an `event` name, never a secret or a picture.

Call `configure` once per process, then `structlog.get_logger()` anywhere. Values bound with
`structlog.contextvars` (call id, job id, model id) are on every line of their task. A call to
another process takes them along: `current_context` at the caller, `bound_context` at the other end.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import structlog

from serve_app.config import LoggingConfig
from serve_app.telemetry import tally, tracing

__all__ = ["SECRET_FIELDS", "LogContext", "bound_context", "configure", "current_context", "redact"]

LogContext = Mapping[str, str | int]

SECRET_FIELDS = frozenset(
    {
        "key",
        "authorization",
        "init_image",
        "mask_image",
        "ip_adapter_image",
        "control_image",
        "webhook",
        "image",
        "base64_string",
    }
)
_MASK = "***"
_MAX_TEXT = 2000  # characters; a longer value is an input that slipped in, not a message


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: mask secret fields at any depth and cut overlong text."""
    return {name: _clean(name, value) for name, value in event.items()}


def _clean(name: str, value: object) -> object:
    if name.lower() in SECRET_FIELDS and value is not None:
        return _MASK
    if isinstance(value, Mapping):
        return {key: _clean(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", item) for item in value]
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{value[:_MAX_TEXT]}... ({len(value)} characters)"
    return value


def current_context() -> LogContext:
    """Return what every line of the current task carries, to be handed to another process."""
    return structlog.contextvars.get_contextvars()


def bound_context(context: LogContext) -> AbstractContextManager[None]:
    """Put what the caller's lines carry on the lines of this block."""
    return structlog.contextvars.bound_contextvars(**context)


def configure(config: LoggingConfig, **everywhere: str) -> None:
    """Set up structlog for this process: lines on standard error, at the configured level.

    Traces too, which go where the lines go (`serve_app.telemetry.tracing`), and the limit of the
    counters of errors.

    Args:
        config: level and format.
        everywhere: put on every line, also those of threads, unless the line has its own value.
    """

    def add_everywhere(
        _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {**everywhere, **event}

    tracing.configure(config)
    tally.ERRORS.max_keys = config.error_keys
    # Plain stack traces only: the pretty ones print local variables, pictures and prompts included.
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer()]
        if config.format == "json"
        else [
            redact,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_everywhere,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.level]
        ),
        # One write per line, newline included: Serve's own lines go to the same stream.
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,  # a replica is configured after modules are imported
    )
