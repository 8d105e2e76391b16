"""A real Ray cluster with the whole application, shared by the tests of this folder.

With workers (`--numprocesses=2`) the tests that need no such application have a cluster beside it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

from serve_app.cli.demo import free_port
from tests.otlp_receiver import OtlpReceiver

MODELS = {"tiny": 0, "twins": 1}  # id -> seed of the random weights
# One of them has two replicas, which only go where a node of the right type is.
PLACED = {
    "twins": ", min_replicas: 2, max_replicas: 2"
    ", accelerator_type: L4, resources: {slot: 1}, label_selector: {role: gpu}",
}
NODE = {"resources": {"accelerator_type:L4": 1, "slot": 3}, "labels": {"role": "gpu"}}
TAIL = {f"tail-{number}": number for number in range(6)}  # served by the Pool
TAIL_ROOM = 2  # of them in memory
HOLD_S = 60.0  # in which all but the slow jobs end, on a busy machine too
TINY_BYTES = 2_372_084  # weights of a random checkpoint
LEASE_S = 2.0
ADMIN_KEY = "an-operators-key-of-some-length"
WEBHOOK_SECRET = "whsec_" + "c2VjcmV0" * 4


# They start a cluster themselves, or applications of their own on the shared one.
WITHOUT_SERVICE = {
    f"tests/serve/test_{name}.py"
    for name in (
        "add_on_router",
        "applications",
        "arrival",
        "demo",
        "restart",
        "scaling",
        "workers",
    )
}


class ByService(LoadScopeScheduling):
    """Gives one worker all files that use the service, others the rest, on clusters of theirs."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in WITHOUT_SERVICE else "service"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Not by xdist's groups: pytest 9.2 and xdist 3.8 do not agree on them."""
    return ByService(config, log)


def pytest_collection_modifyitems(items):
    """Without workers the clusters of their own come first, not beside the shared one.

    Long tests come last: they use models whose loads others count.
    """
    is_long = {item: item.get_closest_marker("long") is not None for item in items}
    items.sort(key=lambda item: ("cluster" in item.fixturenames, is_long[item]))
    for item in items:
        if "service" in item.fixturenames and "cluster" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(560))  # with the start of the service
        if "service" in item.fixturenames and item.nodeid.partition("::")[0] in WITHOUT_SERVICE:
            raise pytest.UsageError(f"{item.nodeid} uses the service: see WITHOUT_SERVICE")


@dataclass(frozen=True)
class Service:
    """A running application."""

    base_url: str
    data_dir: Path
    port: int

    def client(self, **options) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.base_url, timeout=150, trust_env=False, **options)


def write_embedding(folder: Path) -> None:
    """Two vectors for a word; as wide as the text encoder of the random models."""
    import torch
    from safetensors.torch import save_file

    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(11))
    save_file({"emb_params": vectors}, folder / "checkpoints" / "style.safetensors")
    (folder / "models" / "style.yaml").write_text(
        "id: style\ntype: embedding\nsource: checkpoints/style.safetensors\nmodels: [tiny]\n"
    )


def write_controlnets(folder: Path) -> None:
    """Write one by the names of diffusers, one as a single file, for a random model."""
    from diffusers import UNet2DConditionModel

    from serve_app.testing.controlnets import write_random_controlnet

    unet = UNet2DConditionModel.from_pretrained(folder / "checkpoints" / "tiny" / "unet")
    for seed, name in enumerate(("canny", "tile")):
        source = folder / "checkpoints" / f"control-{name}"
        levels = {"conditioning_embedding_out_channels": (16, 32, 96, 256)}
        write_random_controlnet(source, unet, seed, **levels)
        (folder / "models" / f"control-{name}.yaml").write_text(
            f"id: control-{name}\ntype: controlnet\ncontrol: [{name}]\nmodels: [tiny]\n"
            f"source: checkpoints/control-{name}\n"
        )


def write_models(folder: Path) -> None:
    from serve_app.testing.checkpoints import write_random_inpaint

    (folder / "models").mkdir(parents=True)
    for model_id, seed in (MODELS | TAIL).items():
        write_random_inpaint(folder / "checkpoints" / model_id, seed)
        (folder / "models" / f"{model_id}.yaml").write_text(
            f"id: {model_id}\nsource: checkpoints/{model_id}\n"
            "kinds: [text2img, img2img, inpaint]\nnative_size_px: 64\n"
            "defaults: {steps: 4}\n"
            "enhancement: {prompt_suffix: sharp focus, negative_suffix: blurry}\n"
            f"serve: {{num_cpus: 0.1, health_check_period_s: 1{PLACED.get(model_id, '')}}}\n"
            f"placement: {'pool' if model_id in TAIL else 'own'}\n"
        )


def make_checker_flag_everything(checkpoint: Path) -> None:
    """No similarity is below -2, so every concept is found in every picture."""
    import torch
    from safetensors.torch import load_file, save_file

    (weights,) = (checkpoint / "safety_checker").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["concept_embeds_weights"] = torch.full_like(tensors["concept_embeds_weights"], -2.0)
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.fixture(scope="session")
def starting(tmp_path_factory):
    """A lock for who starts a cluster or the service: Ray gives up where its parts start slowly."""
    folder = tmp_path_factory.getbasetemp()
    return FileLock((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "starting")


@pytest.fixture(scope="session")
def cluster(starting):
    """Start Ray and Serve on a free port; stop them at the end of the session."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AUTH_MODE="disabled",
        OMP_NUM_THREADS="1",
        RAY_worker_niceness="0",  # 15, and beside other work replicas starve
        OTEL_BSP_SCHEDULE_DELAY="200",  # ms; 5000, for which tests would have to wait
    )
    import ray
    from ray import serve

    port = free_port()
    with starting:
        ray.init(
            address="local",
            num_cpus=8,
            **NODE,
            include_dashboard=False,
            object_store_memory=300 * 1024**2,
            logging_level="ERROR",
            log_to_driver=False,
        )
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield port
    ray.shutdown()


@pytest.fixture(scope="session")
def collector():
    """Where the service sends its traces."""
    made = OtlpReceiver()
    yield made
    made.close()


@pytest.fixture(scope="session")
def service(cluster, starting, collector, tmp_path_factory):
    """The application, for as long as the session lasts."""
    from ray import serve

    from serve_app.app import build
    from serve_app.config import AppConfig

    root = tmp_path_factory.mktemp("service")
    write_models(root)
    write_embedding(root)
    write_controlnets(root)
    make_checker_flag_everything(root / "checkpoints" / "tiny")
    config = AppConfig.model_validate(
        {
            "root_dir": root,
            "catalogue": {"path": "models"},
            "auth": {"mode": "open", "admin_key": ADMIN_KEY},
            "safety": {"checkpoint": "checkpoints/tiny"},
            "pool": {"memory_bytes": int((TAIL_ROOM + 0.5) * TINY_BYTES), "turn_s": 0},
            "serving": {
                "pool": {"num_cpus": 0.1, "health_check_period_s": 1},
                "janitor": {"num_cpus": 0, "health_check_period_s": 1},
            },
            "engine": {"max_rows": 8},  # less to measure
            "logging": {"traces_url": collector.traces_url},
            "images": {
                "allowed_hosts": ["localhost"],
                "download_timeout_s": 3,
                "max_scans": 1_000_000,  # so that a small file can take long to read
                "decode_timeout_s": 60,
            },
            "jobs": {"hold_s": HOLD_S, "lease_s": LEASE_S, "poll_s": 0.2},
            "reload": {"poll_s": 0.5, "report_s": 1, "hold_s": 60, "min_interval_s": 0},
            "webhooks": {
                "allowed_hosts": ["localhost"],
                "secrets": [WEBHOOK_SECRET],
                "poll_s": 0.2,
                "schedule_s": [0, 0.5, 0.5, 0.5],
            },
        }
    )
    with starting:
        serve.run(build(config), name="dreamserve", route_prefix="/")
    return Service(f"http://127.0.0.1:{cluster}", config.data_dir, cluster)


@pytest.fixture
async def http(service):
    async with service.client() as client:
        yield client
