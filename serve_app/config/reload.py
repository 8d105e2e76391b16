"""How replicas follow `model_reload`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from serve_app.config.components import Seconds, Section

__all__ = ["ReloadConfig"]


class ReloadConfig(Section):
    """How replicas take up the weights that are wanted, and how long a call waits for them."""

    mode: Literal["beside", "alone"] = Field(
        default="beside",
        description="Says how new weights are loaded. beside: while the old ones serve, and "
        "alone only if memory does not suffice; alone: one replica after another unloads, then "
        "loads.",
    )
    poll_s: Seconds = Field(
        default=5.0,
        ge=0.05,
        description="Sets the seconds between looks at which version is wanted.",
    )
    report_s: Seconds = Field(
        default=30.0,
        ge=0.05,
        description="Sets the seconds after which a replica repeats its report.",
    )
    retry_s: Seconds = Field(
        default=600.0,
        ge=1,
        description="Sets the seconds after which weights that were refused are tried again.",
    )
    turn_lease_s: Seconds = Field(
        default=30.0,
        ge=1,
        description="Sets the seconds after which the turn of a dead replica ends (`alone`).",
    )
    hold_s: Seconds = Field(
        default=20.0,
        le=300,
        description="Limits the seconds that model_reload waits before it answers `processing`.",
    )
    min_interval_s: Seconds = Field(
        default=30.0,
        description="Sets the least seconds between two reloads of a model that clients may ask "
        "for, per ingress. An earlier call joins the reload that is running, and is refused once "
        "it has been told the outcome.",
    )
    first_eta_s: Seconds = Field(
        default=120.0,
        description="Sets the `eta`, in seconds, that is told before a load of the model has "
        "been measured.",
    )

    @property
    def max_report_age_s(self) -> float:
        """A replica that said nothing for so long is gone."""
        return 3 * self.report_s + self.poll_s

    @model_validator(mode="after")
    def _reports_outlast_polls(self) -> Self:
        if self.report_s < self.poll_s:
            raise ValueError("report_s is less than poll_s, the time between looks")
        return self
