"""Janitor: drives jobs whose driver died, sends webhooks, removes what has expired; one replica."""

import contextlib

from deployments.background import Rounds
from deployments.clients import GraphClient
from deployments.metrics import Instruments
from deployments.stages import Stages
from serve_app import errors
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.outbox import SqlOutbox
from serve_app.jobs import Driver
from serve_app.jobs.sweeper import Sweeper
from serve_app.storage import open_store
from serve_app.storage.link import FileLinks
from serve_app.telemetry import logging, metrics
from serve_app.telemetry.metrics import OpenJobs
from serve_app.webhooks import open_sender

__all__ = ["Janitor"]


class Janitor:
    """Hosts a driver for left-over jobs, the webhook sender and the sweeper."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, config: AppConfig, stages: Stages
    ) -> None:
        logging.configure(config.logging)
        self._jobs = await open_job_store(config.database)
        graph = GraphClient(stages)
        await graph.models.look()
        files = open_store(config.storage, config.data_dir)
        writer = WebhookWriter(FileLinks(files, config.storage).make)
        self._driver = Driver(self._jobs, graph, config.jobs, writer.write)
        self._driver.start()
        self._outbox = SqlOutbox(self._jobs.database)
        sweeper = Sweeper(self._jobs, self._outbox, files, config.jobs, config.storage)
        sender = open_sender(self._outbox, config.webhooks)
        self._jobs_instruments = Instruments(metrics.JOBS)
        self._webhook_instruments = Instruments(metrics.WEBHOOKS)
        self._open: dict[str, int] = {}
        looking = graph.models.run(config.catalogue.refresh_s)
        self._rounds = Rounds(sweeper.run(), sender.run(), looking)

    async def check_health(self) -> None:
        """Raise when a part has died; report what is to be done while at it."""
        self._driver.check_health()
        self._rounds.check_health()
        with contextlib.suppress(errors.JobStoreUnavailable):
            counts = await self._jobs.count_open()
            self._open = dict.fromkeys(self._open, 0) | counts
            oldest_s = await self._jobs.oldest_open_s()
            self._jobs_instruments.report(OpenJobs(self._open, oldest_s), {})
            self._webhook_instruments.report(await self._outbox.backlog(), {})

    async def __del__(self) -> None:
        await self._rounds.close()
        await self._driver.close()
        await self._jobs.close()
