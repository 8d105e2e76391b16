"""One real Ray cluster with the whole application, shared by the tests of this folder."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

MODELS = {"tiny": 0, "tiny-2": 1}  # id -> seed of the random weights
HOLD_S = 30.0
LEASE_S = 2.0


@dataclass(frozen=True)
class Service:
    """A running application."""

    base_url: str
    data_dir: Path
    port: int

    def client(self, **options) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.base_url, timeout=60, trust_env=False, **options)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_models(folder: Path) -> None:
    from serve_app.pipelines.randomweights import write_random_inpaint

    (folder / "models").mkdir(parents=True)
    for model_id, seed in MODELS.items():
        write_random_inpaint(folder / "checkpoints" / model_id, seed)
        (folder / "models" / f"{model_id}.yaml").write_text(
            f"id: {model_id}\nsource: checkpoints/{model_id}\n"
            "kinds: [text2img, img2img, inpaint]\nnative_size_px: 64\n"
            "defaults: {steps: 4}\n"
            "enhancement: {prompt_suffix: sharp focus, negative_suffix: blurry}\n"
            "serve: {num_cpus: 0.1, max_ongoing_requests: 34, health_check_period_s: 1}\n"
        )


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """Start Ray, Serve and the application; stop all of it at the end of the session."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1")
    import ray
    from ray import serve

    from serve_app.app import build
    from serve_app.config import AppConfig

    root = tmp_path_factory.mktemp("service")
    write_models(root)
    port = free_port()
    config = AppConfig.model_validate(
        {
            "root_dir": root,
            "catalogue": {"path": "models"},
            "auth": {"mode": "open"},
            "safety": {"checkpoint": "checkpoints/tiny"},
            "images": {"allowed_hosts": ["localhost"], "download_timeout_s": 3},
            "jobs": {"hold_s": HOLD_S, "lease_s": LEASE_S, "poll_s": 0.2},
        }
    )
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=300 * 1024**2,
        logging_level="ERROR",
        log_to_driver=False,
    )
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(config), name="dreamserve", route_prefix="/")
    yield Service(f"http://127.0.0.1:{port}", config.data_dir, port)
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
async def http(service):
    async with service.client() as client:
        yield client
