"""The database of a deployment, for commands that work on it while the service runs or not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from serve_app.config import AppConfig
from serve_app.config.file import read_file
from serve_app.database.connection import Database
from serve_app.database.migrate import require

__all__ = ["read_config", "with_database"]

T = TypeVar("T")


def read_config(path: Path) -> AppConfig:
    """Read the settings of the application from a Serve config file and the environment.

    Raises:
        OSError: it cannot be read.
        SettingsError: what it says, or the environment, is wrong.
    """
    return read_file(path).settings


def with_database(config: AppConfig, work: Callable[[Database], Awaitable[T]]) -> T:
    """Connect, work, disconnect. Tables that there are stay as they are: `db upgrade` changes them.

    Raises:
        errors.JobStoreUnavailable: the database does not answer, or has to be upgraded first.
    """

    async def connected() -> T:
        database = Database(config.database)
        try:
            return await work(database)
        finally:
            await database.close()

    require(config.database)
    return asyncio.run(connected())
