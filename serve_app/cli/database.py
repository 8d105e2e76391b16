"""The database of a deployment, for commands that work on it while the service runs or not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import yaml

from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.connection import Database

__all__ = ["read_config", "with_database"]

T = TypeVar("T")


def read_config(path: Path) -> AppConfig:
    """Read the settings of the application from a Serve config file and the environment."""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return AppConfig.model_validate(settings["applications"][0].get("args", {}))


def with_database(config: AppConfig, work: Callable[[Database], Awaitable[T]]) -> T:
    """Connect, work, disconnect.

    Raises:
        errors.JobStoreUnavailable: the database does not answer.
    """

    async def connected() -> T:
        jobs = await open_job_store(config.database)
        try:
            return await work(jobs.database)
        finally:
            await jobs.close()

    return asyncio.run(connected())
