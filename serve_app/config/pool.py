"""`PoolConfig`: how the replicas of the Pool share their memory among models."""

from pydantic import Field

from serve_app.config.components import Seconds, Section

__all__ = ["PoolConfig"]


class PoolConfig(Section):
    """One cache of models per Pool replica."""

    enabled: bool = Field(
        default=False,
        description="Runs a Pool although no model file asks for one, for models that are added "
        "at run time.",
    )
    memory_bytes: int = Field(
        default=8 * 1024**3,
        ge=1,
        description="Limits the bytes of weights that a replica keeps in memory at a time. Leave "
        "room on the device for the activations of the models that paint.",
    )
    host_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Limits the bytes of CPU memory per replica for copies of weights, from "
        "which a model that left the device comes back without reading its files; 0: no copies "
        "are kept.",
    )
    max_loads: int = Field(
        default=1, ge=1, description="Limits the models that a replica loads at the same time."
    )
    max_calls_per_model: int = Field(
        default=128,
        ge=1,
        description="Limits the calls that run or wait for one model of a replica. Further ones "
        "are refused and come back later, so that no model takes all places; more than "
        "`limits.max_open_per_key`, so that no API key does.",
    )
    spread_calls: int = Field(
        default=16,
        ge=1,
        description="Sets the number of calls of one model on a replica from which on another "
        "replica loads it too.",
    )
    stats_period_s: Seconds = Field(
        default=1.0,
        gt=0,
        description="Sets the seconds between the reports of replicas to callers about their "
        "models.",
    )
    turn_s: Seconds = Field(
        default=30.0,
        description="Limits the seconds that a loaded model may stay in use while another waits "
        "for its memory. Set it to several times a load, or the replica does little but load.",
    )
    idle_s: Seconds = Field(
        default=900.0, description="Sets the seconds after which an unused model is evicted."
    )
    assumed_bytes: int = Field(
        default=4 * 1024**3,
        ge=1,
        description="Sets the bytes that a model is assumed to need while its files are not on "
        "the node; its real need is known once it is loaded.",
    )
    retry_load_s: Seconds = Field(
        default=5.0,
        description="Sets the seconds during which calls get the error of a failed load instead "
        "of a new attempt.",
    )
