"""Everything that is SQL: the schema, its migrations, and the stores over it."""

import asyncio

from serve_app.config import DatabaseConfig
from serve_app.database.jobs import SqlJobStore
from serve_app.database.migrate import upgrade

__all__ = ["SqlJobStore", "open_job_store"]


async def open_job_store(config: DatabaseConfig) -> SqlJobStore:
    """Bring the database up to date and open it.

    Raises:
        errors.JobStoreUnavailable: no connection, or a newer version wrote the database.
    """
    await asyncio.to_thread(upgrade, config)
    return SqlJobStore(config)
