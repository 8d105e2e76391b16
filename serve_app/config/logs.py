"""Settings of what the processes of the service say of themselves."""

from typing import Literal

from pydantic import Field

from serve_app.config.components import Section

__all__ = ["LoggingConfig"]


class LoggingConfig(Section):
    """Log lines and traces of every process of the service."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Sets the least severe level that is written."
    )
    format: Literal["json", "console"] = Field(
        default="json", description="Chooses the format of log lines; json is for collectors."
    )
    traces_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Sets where spans go by OTLP over HTTP, as http://COLLECTOR:4318/v1/traces; "
        "none: where OTEL_EXPORTER_OTLP_ENDPOINT says, else no traces.",
    )
    error_keys: int = Field(
        default=100,
        ge=0,
        description="Limits the API keys that `dreamserve_errors_total` tells apart, per process; "
        "those that come later are counted together.",
    )
