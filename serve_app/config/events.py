"""Streams of events: how clients watch a job while it runs."""

from pydantic import Field

from serve_app.config.components import Seconds, Section

__all__ = ["EventsConfig"]


class EventsConfig(Section):
    """Streams of events, by which clients watch jobs."""

    max_streams: int = Field(
        default=200,
        ge=0,
        description="streams at one ingress replica; each takes one of its "
        "`max_ongoing_requests` for as long as it lives; 0: none is served",
    )
    max_streams_per_key: int = Field(
        default=50, ge=1, description="streams of one key at one ingress replica"
    )
    look_s: Seconds = Field(
        default=0.5,
        ge=0.05,
        description="seconds between looks at the jobs that are watched, one call to each replica "
        "of their models; nobody watches, nobody is asked",
    )
    heartbeat_s: Seconds = Field(
        default=15.0,
        ge=0.05,
        description="seconds of silence until a comment is sent, so that no proxy ends the "
        "connection; a key that was revoked is noticed then",
    )
    send_timeout_s: Seconds = Field(
        default=30.0,
        gt=0,
        description="seconds that a client may leave what was sent unread until it is dropped",
    )
    max_stream_bytes: int = Field(
        default=4 * 1024**2,
        ge=1024,
        description="bytes of one stream, after which it ends and its client comes back: Serve's "
        "proxy takes all that it is handed, whether the client reads or not",
    )
    max_stream_s: Seconds = Field(
        default=3600.0, gt=0, description="seconds until a stream ends and its client comes back"
    )
    token_ttl_s: Seconds = Field(
        default=300.0, gt=0, description="seconds in which a token opens the stream of its job"
    )
