"""`DatabaseConfig`: where jobs, keys and usage are kept."""

from pydantic import Field, SecretStr

from serve_app.config.components import Seconds, Section

__all__ = ["DatabaseConfig"]


class DatabaseConfig(Section):
    """The job database, SQLite on one machine or PostgreSQL on a cluster."""

    url: SecretStr | None = Field(
        default=None,
        description="Sets sqlite:///PATH or postgresql://...; none: SQLite under `data_dir`.",
    )
    busy_timeout_s: Seconds = Field(
        default=15.0,
        description="Limits the seconds to wait for SQLite's write lock or for a pooled "
        "connection.",
    )
    pool_size: int = Field(
        default=8, ge=1, le=100, description="Limits the connections per process."
    )
    unreadable_s: Seconds = Field(
        default=86_400.0,
        description="Limits the seconds for which a job that a newer version of the service "
        "accepted waits for a process of that version, before it fails.",
    )
    auto_upgrade: bool | None = Field(
        default=None,
        description="Brings the tables up to date when a service starts, which else refuses to "
        "start on older ones; none: on SQLite, whose file belongs to the service, but not on "
        "PostgreSQL, where `dreamserve db upgrade` does it.",
    )
