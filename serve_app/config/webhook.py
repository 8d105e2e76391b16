"""How webhooks are sent."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from serve_app.config.components import Port, Seconds, Section

__all__ = ["WebhooksConfig"]


class WebhooksConfig(Section):
    """Telling receivers that a job is done."""

    secrets: tuple[SecretStr, ...] = Field(
        default=(),
        description="Lists the signing secrets, whsec_..., newest first; each signs every "
        "message (Standard Webhooks). none: messages are not signed.",
    )
    timeout_s: Seconds = Field(default=20.0, gt=0, description="Limits the seconds of one attempt.")
    lease_s: Seconds = Field(
        default=60.0,
        description="Sets the seconds after which another sender takes over the message of a "
        "dead one.",
    )
    max_in_flight: int = Field(
        default=32, ge=1, description="Limits the attempts that run at the same time."
    )
    poll_s: Seconds = Field(
        default=1.0, ge=0.05, description="Sets the seconds between looks at the outbox."
    )
    schedule_s: tuple[Seconds, ...] = Field(
        default=(),
        description="Lists the seconds before each attempt, the first included; none: twelve "
        "attempts over 75 hours, three of them in the first half minute.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Lists receivers that may resolve to private or special addresses, on any "
        "port.",
    )
    allowed_ports: tuple[Port, ...] = Field(
        default=(80, 443), description="Lists the ports on which other receivers may be reached."
    )
    lookup_timeout_s: Seconds = Field(
        default=2.0,
        gt=0,
        le=30,
        description="Limits the seconds that a call waits for the address of its webhook's host. "
        "After them the call is accepted, and the address is checked when the message is sent.",
    )

    @model_validator(mode="after")
    def _lease_outlasts_an_attempt(self) -> Self:
        if self.lease_s <= self.timeout_s:
            raise ValueError("lease_s must be longer than timeout_s, or messages are sent twice")
        return self
