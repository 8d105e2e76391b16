"""One fake service and a client of the whole HTTP side over it."""

import gc
import json
from pathlib import Path

import httpx2
import pytest

from serve_app.api import create_api
from serve_app.config import HttpConfig, JobsConfig
from serve_app.models import AddOn, Enhancement, ModelEntry
from serve_app.models.entry import ModelDefaults
from serve_app.testing.service import FakeService
from serve_app.types import Kind

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def entry(**changes):
    values = {"id": "your_model_id", "source": Path("nowhere"), "kinds": tuple(Kind)}
    return ModelEntry(**{**values, **changes})


def documented_enhancement():
    """The style words of the documented reply, as a model entry would hold them."""
    meta = golden("inpaint_success")["meta"]
    suffix = meta["prompt"].removeprefix(" a cat sitting on a bench ")
    return Enhancement(prompt_suffix=suffix, negative_suffix=meta["negative_prompt"].lstrip())


class Api:
    """A client with the calls that tests make again and again."""

    def __init__(self, service, app):
        self.service = service
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, raise_app_exceptions=True),
            base_url="http://testserver",
            trust_env=False,
        )

    async def post(self, path, body=None, headers=None):
        """Send JSON as Python's own encoder writes it: with NaN, with lone surrogates."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | (headers or {})
        return await self.http.post(path, content=content, headers=headers)

    async def reply(self, path, body=None, **kwargs):
        answer = await self.post(path, body, **kwargs)
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    async def last_request(self, path, body):
        reply = await self.reply(path, body)
        assert reply["status"] == "success", reply
        return self.service.jobs[reply["id"]].request


ENTRIES = [
    entry(),
    entry(id="midjourney-v4-painta", enhancement=documented_enhancement()),
    entry(id="coarse", size_multiple_px=16, enhancement=Enhancement(styles=False)),
    entry(id="inpaint-only", kinds=(Kind.INPAINT,)),
    entry(id="sharp", upscaler="for-sharp"),
    entry(id="turbo", max_guidance=1.5, max_steps=4),
    entry(
        id="other-defaults",
        native_size_px=768,
        defaults=ModelDefaults(steps=12, guidance_scale=3, strength=0.4),
    ),
]

ADD_ONS = [
    AddOn(id="contrast-fix", type="lora", source=Path("nowhere")),
    AddOn(id="yae-miko", type="lora", source=Path("nowhere"), name="Yae", description="pink"),
    AddOn(id="only-inpaint", type="lora", source=Path("nowhere"), models=("inpaint-only",)),
    AddOn(id="kl-f8", type="vae", source=Path("nowhere")),
    AddOn(id="badhands", type="embedding", source=Path("nowhere"), trigger="bad-hands"),
    AddOn(id="ip-adapter-plus_sd15", type="ip_adapter", source=Path("nowhere")),
    *(
        AddOn(id=f"control-{name}", type="controlnet", source=Path("nowhere"), control=(name,))
        for name in ("canny", "depth", "inpaint")
    ),
    AddOn(id="esrgan", type="upscaler", source=Path("nowhere")),
    AddOn(id="for-sharp", type="upscaler", source=Path("nowhere"), models=("sharp",)),
    AddOn(id="control-plain", type="controlnet", source=Path("nowhere")),
    AddOn(
        id="control-other",
        type="controlnet",
        source=Path("nowhere"),
        control=("canny", "tile"),
        models=("inpaint-only",),
    ),
]


@pytest.fixture(scope="session")
def shared():
    """A service and an app with the default settings: an app takes 60 ms to build."""
    service = FakeService(ENTRIES, add_ons=ADD_ONS)
    return service, create_api(service, HttpConfig(), JobsConfig())


@pytest.fixture
def service(shared):
    shared[0].__init__(ENTRIES, add_ons=ADD_ONS)  # as new
    return shared[0]


@pytest.fixture
async def make_api(service, shared):
    made = []

    def make(http=None, jobs=None, events=None):
        app = shared[1]
        if http or jobs or events:
            app = create_api(service, http or HttpConfig(), jobs or JobsConfig(), events)
        made.append(Api(service, app))
        return made[-1]

    yield make
    for api in made:
        await api.http.aclose()


@pytest.fixture
def api(make_api):
    return make_api()


@pytest.fixture
def inpaint_body():
    return golden("inpaint_request")


@pytest.fixture
def text_body():
    return {"key": "", "model_id": "your_model_id", "prompt": "a cat"}


@pytest.fixture
def load_golden():
    return golden


@pytest.fixture
def open_api(service, shared):
    """For tests that own their event loop."""
    return lambda: Api(service, shared[1])


@pytest.fixture(scope="module")
def frozen():
    """As in the ingress: the garbage of a call does not make Python walk through all modules."""
    gc.collect()
    gc.freeze()
