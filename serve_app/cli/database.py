"""The database of a deployment, for commands that work on it while the service runs or not."""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from serve_app.config import AppConfig
from serve_app.config.serve_file import read_file
from serve_app.database.connection import Database
from serve_app.database.jobs import SqlJobStore
from serve_app.database.migrate import require
from serve_app.telemetry.actor import acting_as

__all__ = ["read_config", "with_database", "with_store"]

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

    return with_store(config, lambda store: work(store.database))


def with_store(config: AppConfig, work: Callable[[SqlJobStore], Awaitable[T]]) -> T:
    """Do the same with the jobs of the database; raises like `with_database`."""

    async def connected() -> T:
        store = SqlJobStore(config.database)
        try:
            return await work(store)
        finally:
            await store.close()

    require(config.database)
    with acting_as(f"cli:{_user()}"):
        return asyncio.run(connected())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number that has no name
        return str(os.getuid())
