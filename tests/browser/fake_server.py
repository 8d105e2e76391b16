"""The HTTP side over a service without models, in a thread: for what needs no painter.

Jobs are painted by being looked at: by the first fetch half, by the second to the end.
"""

import asyncio
import copy
import io
import json
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image, ImageDraw
from pydantic import SecretStr
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from serve_app import errors
from serve_app.api import create_api
from serve_app.api.protocol import StoredFile
from serve_app.api.routes.admin import Accounts, Admin
from serve_app.api.routes.overview import Watch
from serve_app.cli.demo import free_port
from serve_app.config import CatalogueConfig, HttpConfig, JobsConfig, ReloadConfig
from serve_app.jobs.rate import RateLimiter
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.models.registry import Registry, judge_files
from serve_app.models.reload import Reloads
from serve_app.testing.audit import MemoryAuditLog
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.testing.keys import MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.service import FakeService
from serve_app.types import Job, JobFailure, JobState, Kind
from tests.unit.telemetry.test_overview import PAGES

__all__ = ["ADMIN_KEY", "FakeServer", "png"]

ADMIN_KEY = "an-operators-key-of-some-length"
MOST_S = 120.0  # that a stream waits for its test
EVENTS = "/api/v4/dreambooth/events/{job_id:int}"
SOURCE = Path("nowhere")
MODELS = [
    ModelEntry(id="all", name="Paints everything", source=SOURCE, kinds=tuple(Kind)),
    ModelEntry(id="text", name="Text only", source=SOURCE, kinds=(Kind.TEXT2IMG,)),
]
ADD_ONS = [
    AddOn(id="ink", name="Ink", type="lora", source=SOURCE, models=("all",)),
    AddOn(id="warm", name="Warm paper", type="vae", source=SOURCE),
    AddOn(id="sun", name="Sun", type="embedding", source=SOURCE),
    AddOn(
        id="edges",
        name="Edges",
        type="controlnet",
        source=SOURCE,
        control=("canny",),
        models=("all",),
    ),
    AddOn(id="style", name="Style", type="ip_adapter", source=SOURCE, models=("all",)),
    AddOn(id="larger", name="Larger", type="upscaler", source=SOURCE),
]


def png(colour: str = "#3b7dd8", size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture with something in it."""
    picture = Image.new("RGB", size, colour)
    ImageDraw.Draw(picture).ellipse(
        (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), "#fff"
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


async def show_metrics(request):
    """The page of a node, as Ray's agent exports it."""
    return PlainTextResponse(PAGES[request.path_params["number"]])


class PaintingService(FakeService):
    """Paints half of a job at each look; `is_stuck` jobs wait for ever.

    Where it `stops_half_way`, no job is painted beyond its half.
    """

    def __init__(self) -> None:
        super().__init__(MODELS, add_ons=ADD_ONS)
        self.is_stuck = self.stops_half_way = False

    async def fetch(self, job_id: int, key_id: str) -> Job:
        job = await super().fetch(job_id, key_id)
        if job.state.is_final or self.is_stuck:
            return job
        if isinstance(self.outcome, JobFailure):
            return self.settle(job_id)
        if job.progress >= 0.5 and self.stops_half_way:
            return job
        if job.progress < 0.5:
            return self._update(job_id, state=JobState.PROCESSING, progress=job.progress + 0.5)
        for number, key in enumerate(job.request.output.keys):
            colour = f"#{(40 + 50 * number) % 256:02x}8060"
            self.files[key] = StoredFile(png(colour), "image/png")
        return self.settle(job_id)


class FakeServer:
    """Serves on a port of its own until `close`. What it is asked is in `calls`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.reset()
        config = uvicorn.Config(
            self._app, "127.0.0.1", self.port, log_level="critical", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def reset(self) -> None:
        """Forget all jobs; every caller is welcome, and there are no events."""
        self.service = PaintingService()
        self.events = None  # scripts of streams: lists of (name, data), and of what to wait for
        self.calls: list[tuple[str, dict]] = []
        self.is_down = False
        self.offers: dict[str, dict] = {}  # fields of the inpaint call besides those that are there
        reloads = Reloads(MemoryModelStore(), FakeGraph().notify_replicas, ReloadConfig(hold_s=0))
        judge = judge_files(CatalogueConfig(), SOURCE)
        registry = Registry(Catalogue(MODELS), MemoryModelStore(), has_pool=False, judge=judge)
        accounts = Accounts(MemoryKeyStore(), MemoryJobStore().costs, MemoryAuditLog())
        admin = Admin(registry, reloads, SecretStr(ADMIN_KEY), RateLimiter(100), accounts)

        async def last_failed(_limit):
            failed = [job for job in self.service.jobs.values() if job.failure]
            return [job.model_copy(update={"finished_at": 1.8e9}) for job in failed]

        pages = [f"{self.url}metrics/{number}" for number in range(len(PAGES))]
        watch = Watch(lambda: pages, last_failed)
        self.api = create_api(self.service, HttpConfig(), JobsConfig(), operator=admin, watch=watch)
        self.api.router.routes.insert(0, Route(EVENTS, self._stream))
        self.api.router.routes.insert(0, Route("/openapi.json", self._describe))
        self.api.router.routes.insert(0, Route("/metrics/{number:int}", show_metrics))

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join()

    async def _app(self, scope, receive, send):
        if scope["type"] == "http" and self.is_down:
            await JSONResponse({"detail": "down"}, 502)(scope, receive, send)
            return
        await self.api(scope, self._listen(scope, receive), send)

    def _listen(self, scope, receive):
        parts = []

        async def listen():
            message = await receive()
            parts.append(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body"):
                text = b"".join(parts)
                self.calls.append((scope["path"], json.loads(text) if text[:1] == b"{" else {}))
            return message

        return listen

    async def _describe(self, _request):
        schema = copy.deepcopy(self.api.openapi())
        body = schema["paths"]["/api/v4/dreambooth/inpaint"]["post"]["requestBody"]
        body["content"]["application/json"]["schema"]["properties"] |= self.offers
        return JSONResponse(schema)

    async def _stream(self, request):
        """A stub of the events call: a script for each connection, from `self.events`."""
        if self.events is None:
            return JSONResponse(
                {"status": "error", "reason": "no_such_call", "message": "No."}, 404
            )
        assert request.headers["authorization" if self.service.keys else "accept"]
        assert not request.url.query
        job_id = request.path_params["job_id"]
        script = self.events.pop(0)
        self.calls.append(("events", {"last": request.headers.get("last-event-id")}))

        async def write():
            for number, entry in enumerate(script):
                if isinstance(entry, threading.Event):
                    await asyncio.to_thread(entry.wait, MOST_S)
                    continue
                name, data = entry
                yield b": heartbeat\n\n"
                told = await self._paint(job_id) if name == "done" else data
                yield f"id: {number}\nevent: {name}\ndata: {json.dumps(told)}\n\n".encode()
                await asyncio.sleep(0.25)

        return StreamingResponse(write(), media_type="text/event-stream")

    async def _paint(self, job_id):
        job = await self.service.fetch(job_id, "open")
        while job.state is not JobState.SUCCESS:
            job = await self.service.fetch(job_id, "open")
        links = [f"{self.url}files/{key}" for key in job.request.output.keys]
        return {"status": "success", "id": job_id, "output": links, "nsfw_content_detected": False}

    def refuse(self, error: errors.DreamserveError | None) -> None:
        """Refuse all jobs from now on, or none."""
        self.service.refusal = error
