"""Everything that is SQL: the schema, its migrations, and the stores over it."""

import asyncio

from serve_app.config import DatabaseConfig
from serve_app.database.jobs import SqlJobStore
from serve_app.database.migrate import prepare

__all__ = ["SqlJobStore", "open_job_store"]


async def open_job_store(config: DatabaseConfig) -> SqlJobStore:
    """Open the database for a service that starts; its tables are brought up to date if they may.

    Raises:
        errors.JobStoreUnavailable: no connection, or the tables are not those of this program.
    """
    await asyncio.to_thread(prepare, config)
    return SqlJobStore(config)
