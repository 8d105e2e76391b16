"""Durable jobs, webhooks to send and API keys: stores over SQL, and their twins in memory."""

import asyncio

from serve_app.config import DatabaseConfig
from serve_app.jobs.driver import Driver
from serve_app.jobs.migrate import upgrade
from serve_app.jobs.sql import SqlJobStore

__all__ = ["Driver", "SqlJobStore", "open_job_store"]


async def open_job_store(config: DatabaseConfig) -> SqlJobStore:
    """Bring the database up to date and open it.

    Raises:
        errors.JobStoreUnavailable: no connection, or a newer version wrote the database.
    """
    await asyncio.to_thread(upgrade, config)
    return SqlJobStore(config)
