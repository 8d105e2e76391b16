"""How webhooks are sent."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from serve_app.config.components import Port, Seconds, Section

__all__ = ["WebhooksConfig"]


class WebhooksConfig(Section):
    """Telling receivers that a job is done."""

    secrets: tuple[SecretStr, ...] = Field(
        default=(),
        description="whsec_..., newest first; each signs (Standard Webhooks); none: not signed",
    )
    timeout_s: Seconds = Field(default=20.0, gt=0, description="seconds of one attempt")
    lease_s: Seconds = Field(
        default=60.0, description="seconds until the message of a dead sender is sent by another"
    )
    max_in_flight: int = Field(default=32, ge=1, description="attempts at a time")
    poll_s: Seconds = Field(default=1.0, ge=0.05, description="seconds between looks at the outbox")
    schedule_s: tuple[Seconds, ...] = Field(
        default=(),
        description="seconds before each attempt, the first included; none: twelve attempts over "
        "75 hours, three of them in the first half minute",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="receivers that may resolve to private or special addresses, on any port",
    )
    allowed_ports: tuple[Port, ...] = Field(
        default=(80, 443), description="ports that other receivers may be dialled on"
    )
    lookup_timeout_s: Seconds = Field(
        default=2.0,
        gt=0,
        le=30,
        description="seconds that a call waits for the address of its webhook's host; after them "
        "it is accepted, and judged when it is sent",
    )

    @model_validator(mode="after")
    def _lease_outlasts_an_attempt(self) -> Self:
        if self.lease_s <= self.timeout_s:
            raise ValueError("lease_s must be longer than timeout_s, or messages are sent twice")
        return self
