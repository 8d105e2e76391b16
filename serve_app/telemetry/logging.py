"""Structured logs of every process: JSON lines with an `event` name, never a secret or a picture.

Call `configure` once per process, then `structlog.get_logger()` anywhere. Values bound with
`structlog.contextvars` (request id, job id) are on every line of their task.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from serve_app.config import LoggingConfig

__all__ = ["SECRET_FIELDS", "configure", "redact"]

SECRET_FIELDS = frozenset(
    {"key", "authorization", "init_image", "mask_image", "webhook", "image", "base64_string"}
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


def configure(config: LoggingConfig) -> None:
    """Set up structlog for this process: lines on standard error, at the configured level."""
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
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.level]
        ),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,  # a replica is configured after modules are imported
    )
