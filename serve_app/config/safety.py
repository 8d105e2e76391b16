"""Settings of the NSFW check."""

from pathlib import Path

from pydantic import Field

from serve_app.config.components import Section

__all__ = ["SafetyConfig"]


class SafetyConfig(Section):
    """The NSFW check."""

    checkpoint: Path | None = Field(
        default=None,
        description="Names the folder with safety_checker/ and feature_extractor/; none: asking "
        "for the check fails the job, since nothing unchecked may leave.",
    )
    device: str = Field(default="cpu", description="Chooses the device: auto, cpu, cuda or cuda:N.")
