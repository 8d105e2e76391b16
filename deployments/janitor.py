"""Janitor: drives jobs whose driver died, sends webhooks, removes what has expired; one replica."""

import contextlib

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from deployments.background import Rounds
from deployments.clients import GraphClient
from deployments.metrics import Instruments
from deployments.readiness import is_staying
from deployments.stages import Stages
from serve_app import errors
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.outbox import SqlOutbox
from serve_app.database.usage import SqlUsageStore
from serve_app.jobs import Driver
from serve_app.jobs.growth import Growth
from serve_app.jobs.sweeper import Sweeper
from serve_app.service.dependencies import Dependencies
from serve_app.storage import open_store
from serve_app.storage.link import FileLinks
from serve_app.telemetry import logging, metrics, tally
from serve_app.telemetry.metrics import GONE, OpenJobs, PartStates
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
        self._dependencies = Dependencies(self._jobs, files, graph)
        self._parts_instruments = Instruments(metrics.PARTS)
        self._jobs_instruments = Instruments(metrics.JOBS)
        self._error_instruments = Instruments(metrics.ERRORS)
        self._database_instruments = Instruments(metrics.DATABASE)
        self._webhook_instruments = Instruments(metrics.WEBHOOKS)
        self._usage, self._growth = SqlUsageStore(self._jobs.database), Growth()
        self._usage_instruments = Instruments(metrics.USAGE)
        self._open: dict[str, int] = {}
        self._ready: dict[str, int] = {}
        self._graph = graph
        self._drain_s = config.jobs.drain_s
        looking = graph.models.run(config.catalogue.refresh_s)
        self._rounds = Rounds(sweeper.run(), sender.run(), looking)

    async def check_health(self) -> None:
        """Raise when a part has died; report what is to be done while at it."""
        self._driver.check_health()
        self._rounds.check_health()
        self._error_instruments.report(tally.ERRORS, {})
        waited = metrics.DatabaseWait(self._jobs.database.longest_wait_s())
        self._database_instruments.report(waited, {})
        await self._report_parts()
        with contextlib.suppress(errors.JobStoreUnavailable):
            counts = await self._jobs.count_open()
            self._open = dict.fromkeys(self._open, 0) | counts
            oldest_s = await self._jobs.oldest_open_s()
            self._jobs_instruments.report(OpenJobs(self._open, oldest_s), {})
            self._webhook_instruments.report(await self._outbox.backlog(), {})
            month = await self._usage.this_month()
            used = self._growth.since(month, await self._usage.by_model(month))
            for model_id, sums in used.items():
                self._usage_instruments.report(sums, {"model_id": model_id})

    async def _report_parts(self) -> None:
        parts = await self._dependencies.look()
        ready: dict[str, bool] = {}
        with contextlib.suppress(RayError, RayServeException):  # the controller is away
            ready = await self._graph.readiness(self._graph.models.model_ids())
        self._ready = dict.fromkeys(self._ready, GONE) | {one: int(ready[one]) for one in ready}
        up = {part: int(is_up) for part, is_up in parts.items()}
        self._parts_instruments.report(PartStates(up, self._ready), {})

    async def __del__(self) -> None:
        if await is_staying():
            await self._driver.drain(self._drain_s)
        await self._rounds.close()
        await self._driver.close()
        await self._jobs.close()
