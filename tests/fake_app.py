"""The whole application on Ray in a process of its own, with painters that need no weights.

For tests that take it away and bring it back: `FakeApp` starts, stops and kills it. Run as a
program it is the process itself: `python -m tests.fake_app CONFIG.json PORT`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import psutil

__all__ = ["MODEL", "FakeApp"]

ROOT = Path(__file__).parents[1]
MODEL = "fake"
_START_TIMEOUT_S = 240.0  # on a loaded machine; 20 on a free one
_STOP_TIMEOUT_S = 60.0


class FakeApp:
    """One installation: its folder and port stay, its processes come and go.

    Args:
        folder: of models, data and logs; must be empty.
        port: of the HTTP proxy.
        replicas: of each deployment that may have several.
        sections: of the configuration.
    """

    program = "tests.fake_app"

    def __init__(self, folder: Path, port: int, replicas: int = 1, **sections):
        self.folder = folder
        self.base_url = f"http://127.0.0.1:{port}"
        self.num_replicas = replicas
        self.environment: dict[str, str] = {}
        self.port = port
        self._process: subprocess.Popen | None = None
        twins = {"num_cpus": 0, "min_replicas": replicas, "max_replicas": replicas}
        twins["health_check_period_s"] = 1
        (folder / "models").mkdir()
        (folder / "models" / "fake.yaml").write_text(
            f"id: {MODEL}\nsource: nothing\nkinds: [text2img, img2img, inpaint]\n"
            "native_size_px: 64\ndefaults: {steps: 4}\n"
            f"serve: {json.dumps(twins)}\n"
        )
        stage = {"num_cpus": 0, "health_check_period_s": 1}
        config = {
            "root_dir": str(folder),
            "catalogue": {"path": "models"},
            "auth": {"mode": "open"},
            "engine": {"painter": "fake", **sections.pop("engine", {})},
            "serving": {
                "ingress": twins | {"max_ongoing_requests": 512, "target_ongoing_requests": 200},
                "preprocess": twins,
                "upload": twins,
                "safety": stage,
                "janitor": stage,
            },
            **sections,
        }
        (folder / "config.json").write_text(json.dumps(config))

    @property
    def ray_address(self) -> str:
        """Where drivers may join its cluster."""
        return (self.folder / "ray-address").read_text()

    @property
    def data_dir(self) -> Path:
        return self.folder / "var"

    def start(self) -> float:
        """Start and wait until every model answers; return the seconds that it took."""
        begun = time.monotonic()
        command = [sys.executable, "-m", self.program]
        command += [str(self.folder / "config.json"), str(self.port)]
        environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # 15, and beside other work replicas starve
        }
        environment |= self.environment
        with (self.folder / "app.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            with httpx2.Client(base_url=self.base_url, trust_env=False, timeout=5) as client:
                while not _is_ready(client):
                    assert self._process.poll() is None, self.log_tail()
                    assert time.monotonic() - begun < _START_TIMEOUT_S, self.log_tail()
                    time.sleep(0.1)
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - begun

    def signal(self, number: int) -> None:
        """Send a signal to the process that started the cluster."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop as an operator does."""
        if self._process is not None:
            family = self.processes()
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            finally:
                self._end(family)

    def kill(self) -> None:
        """Kill every process at once, as a power cut would."""
        if self._process is not None:
            self._end(self.processes())

    def processes(self) -> list[psutil.Process]:
        """The process, Ray's and every replica."""
        try:
            host = psutil.Process(self._process.pid)
            return [host, *host.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of one deployment's replicas that have started."""
        found = []
        for process in self.processes():
            try:
                title = " ".join(process.cmdline())  # Ray writes what the actor is and does
            except psutil.Error:
                continue
            if f"ServeReplica:dreamserve:{deployment}" in title and ".initialize" not in title:
                found.append(process)
        return found

    def log_tail(self) -> str:
        """The last lines that the process wrote."""
        return (self.folder / "app.log").read_text(errors="replace")[-3000:]

    def _end(self, family: list[psutil.Process]) -> None:
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=_STOP_TIMEOUT_S)
        self._process.wait()
        self._process = None


def _is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def _main(config_path: str, port: str) -> None:
    import ray
    from ray import serve

    from serve_app.app import build
    from serve_app.config import AppConfig

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    config = AppConfig.model_validate(json.loads(Path(config_path).read_text()))
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 * 1024**2,
        log_to_driver=False,
    )
    Path(config_path).with_name("ray-address").write_text(ray.get_runtime_context().gcs_address)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(build(config), name="dreamserve", route_prefix="/")
    stopping.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    _main(*sys.argv[1:])
