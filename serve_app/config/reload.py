"""How replicas follow `model_reload`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from serve_app.config.components import Seconds, Section

__all__ = ["ReloadConfig"]


class ReloadConfig(Section):
    """How replicas take up the weights that are wanted, and how long a call waits for them."""

    mode: Literal["beside", "alone"] = Field(
        default="beside",
        description="beside: new weights are loaded while the old ones serve, and alone only when "
        "memory does not suffice; alone: one replica after another unloads, then loads",
    )
    poll_s: Seconds = Field(
        default=5.0, ge=0.05, description="seconds between looks at what is wanted"
    )
    report_s: Seconds = Field(
        default=30.0, ge=0.05, description="seconds after which a replica repeats its report"
    )
    retry_s: Seconds = Field(
        default=600.0, ge=1, description="seconds until weights that were refused are tried again"
    )
    turn_lease_s: Seconds = Field(
        default=30.0, ge=1, description="seconds until the turn of a dead replica ends (`alone`)"
    )
    hold_s: Seconds = Field(
        default=20.0, le=300, description="seconds that model_reload waits before `processing`"
    )
    min_interval_s: Seconds = Field(
        default=30.0,
        description="seconds between two reloads of a model that clients may ask for, per ingress; "
        "a call before joins the one at work, and is refused once it was told how that went",
    )
    first_eta_s: Seconds = Field(
        default=120.0, description="seconds told as `eta` before a load of the model was measured"
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
