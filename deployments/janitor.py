"""Janitor: drives jobs whose driver died, and removes what has expired. Exactly one replica."""

import asyncio

from deployments.clients import GraphClient, Stages
from serve_app.api.webhook import body as webhook_body
from serve_app.config import AppConfig
from serve_app.jobs import Driver, open_job_store
from serve_app.jobs.sweeper import Sweeper
from serve_app.storage import open_store
from serve_app.telemetry import logging

__all__ = ["Janitor"]


class Janitor:
    """Hosts a driver for left-over jobs and the sweeper."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, config: AppConfig, stages: Stages
    ) -> None:
        logging.configure(config.logging)
        self._jobs = await open_job_store(config.database)
        graph = GraphClient(stages)
        self._driver = Driver(self._jobs, graph, config.jobs, webhook_body)
        self._driver.start()
        files = open_store(config.storage, config.data_dir)
        self._sweeper = Sweeper(self._jobs, files, config.jobs, config.storage)
        self._sweeping = asyncio.create_task(self._sweeper.run())

    async def __del__(self) -> None:
        self._sweeping.cancel()
        await self._driver.close()
        await self._jobs.close()
