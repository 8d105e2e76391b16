"""`PoolConfig`: how the replicas of the Pool share their memory among models."""

from pydantic import Field

from serve_app.config.components import Seconds, Section

__all__ = ["PoolConfig"]


class PoolConfig(Section):
    """One cache of models per Pool replica."""

    enabled: bool = Field(
        default=False,
        description="run a Pool although no model file asks for it, for models added at run time",
    )
    memory_bytes: int = Field(
        default=8 * 1024**3,
        ge=1,
        description="bytes of weights in memory at a time; leave room on the device for the "
        "activations of the models that paint",
    )
    host_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="bytes of CPU memory per replica for copies of weights, from which a model "
        "that left the device comes back without its files being read; 0: none",
    )
    max_loads: int = Field(default=1, ge=1, description="models loaded at a time per replica")
    max_calls_per_model: int = Field(
        default=64,
        ge=1,
        description="calls at or waiting for one model of a replica; more are "
        "refused and come back later, so that no model takes all places",
    )
    spread_calls: int = Field(
        default=16,
        ge=1,
        description="calls of one model on a replica from which on another replica loads it too",
    )
    stats_period_s: Seconds = Field(
        default=1.0, gt=0, description="seconds between what replicas tell callers of their models"
    )
    turn_s: Seconds = Field(
        default=30.0,
        description="seconds that a loaded model may stay in use while another waits for its "
        "room; several times a load, or loading is all that happens",
    )
    idle_s: Seconds = Field(default=900.0, description="seconds until an unused model leaves")
    assumed_bytes: int = Field(
        default=4 * 1024**3,
        ge=1,
        description="bytes that a model is taken to need whose files are not on the node yet; what "
        "it really needs is known once it is loaded",
    )
    retry_load_s: Seconds = Field(
        default=5.0, description="seconds in which a failed load answers for those that follow"
    )
