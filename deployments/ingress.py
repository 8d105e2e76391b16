"""Ingress: the HTTP side. Builds the FastAPI app over the service and drives accepted jobs."""

import gc
from functools import partial

import structlog
from ray import serve
from ray.serve.context import _get_global_client  # private, and the only way to the bound host
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments import nodes
from deployments.background import Rounds
from deployments.clients import GraphClient
from deployments.metrics import Instruments
from deployments.readiness import is_staying
from deployments.stages import Stages
from serve_app.api import create_api
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.api.routes.admin import Accounts, Admin
from serve_app.api.routes.overview import Watch
from serve_app.config import AppConfig
from serve_app.config.bind import check_bind
from serve_app.database import open_job_store
from serve_app.database.audit import SqlAuditLog
from serve_app.database.keys import SqlKeyStore
from serve_app.database.models import SqlModelStore
from serve_app.database.outbox import SqlOutbox
from serve_app.database.usage import SqlUsageStore
from serve_app.jobs import Driver
from serve_app.jobs.rate import RateLimiter
from serve_app.models import Catalogue, CatalogueView
from serve_app.models.registry import Registry, judge_files
from serve_app.models.reload import Reloads
from serve_app.service.generation import GenerationService, Stores
from serve_app.service.work import work_of
from serve_app.storage import open_store
from serve_app.storage.link import FileLinks
from serve_app.telemetry import logging, metrics, tally

__all__ = ["Ingress"]


@serve.ingress()
class Ingress:
    """Owns the service, its driver and its database connections."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self,
        config: AppConfig,
        catalogue: Catalogue,
        stages: Stages,
        janitor: DeploymentHandle,  # noqa: ARG002  # bound, so that Serve deploys it with the rest
    ) -> None:
        logging.configure(config.logging)
        check_bind(config.auth, _get_global_client().http_config.host)
        structlog.get_logger().info("configuration", **config.redacted())
        self._config = config
        self._jobs = await open_job_store(config.database)
        graph = GraphClient(stages)
        await graph.models.look()
        files = open_store(config.storage, config.data_dir)
        writer = WebhookWriter(FileLinks(files, config.storage).make)
        database = self._jobs.database
        self._models = SqlModelStore(database)
        view = CatalogueView(catalogue, self._models, config.root_dir)
        work = partial(work_of, view, config.engine)
        self._driver = Driver(self._jobs, graph, config.jobs, writer.write, work)
        self._driver.start()
        keys = SqlKeyStore(database)
        stores = Stores(self._jobs, files, keys, SqlOutbox(database))
        self._accounts = Accounts(keys, SqlUsageStore(database), SqlAuditLog(database))
        self._reloads = Reloads(self._models, graph.notify_replicas, config.reload)
        self._catalogue = catalogue
        refresh_s = config.catalogue.refresh_s
        self._service = GenerationService(stores, view, self._driver, graph, self._reloads, config)
        audience = self._service.audience
        self._instruments = Instruments(metrics.STREAMS)
        self._error_instruments = Instruments(metrics.ERRORS)
        self._database_instruments = Instruments(metrics.DATABASE)
        self._rounds = Rounds(view.run(refresh_s), graph.models.run(refresh_s), audience.run())
        gc.freeze()  # else the garbage of a call can have all modules walked through: 0.1 s

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve after the constructor; see `serve.ingress`."""
        config, key = self._config, self._config.auth.admin_key
        has_pool = self._catalogue.has_pool(config.pool)
        judge = judge_files(config.catalogue, config.root_dir)
        registry = Registry(self._catalogue, self._models, has_pool=has_pool, judge=judge)
        failures = RateLimiter(config.auth.admin_failures_per_minute)
        operator: Admin | None = None
        if key is not None:
            operator = Admin(registry, self._reloads, key, failures, self._accounts)
        watch = Watch(nodes.metrics_pages, self._jobs.last_failed)
        http, jobs, events = config.http, config.jobs, config.events
        return create_api(self._service, http, jobs, events, operator, watch)

    async def check_health(self) -> None:
        """Raise when a part that runs beside the calls has ended; Serve replaces the replica."""
        self._driver.check_health()
        self._rounds.check_health()
        self._instruments.report(self._service.audience, {})
        self._error_instruments.report(tally.ERRORS, {})
        waited = metrics.DatabaseWait(self._jobs.database.longest_wait_s())
        self._database_instruments.report(waited, {})

    async def __del__(self) -> None:
        if await is_staying():
            await self._driver.drain(self._config.jobs.drain_s)
        await self._rounds.close()
        await self._driver.close()
        await self._jobs.close()
