"""The whole application on a Ray cluster of several nodes on one machine, in a process of its own.

The head has everything but the models; each worker node takes one replica of each. SIGUSR1 takes
the newest worker node away without a warning, SIGUSR2 adds one. Run as a program:
`python -m tests.node_cluster CONFIG.json PORT`.
"""

import json
import signal
import sys
import threading
from pathlib import Path

from tests.fake_app import FakeApp

__all__ = ["WORKER", "NodeCluster"]

WORKER = "worker"  # resource of the nodes that hold models
_NUM_WORKERS = 2


class NodeCluster(FakeApp):
    """Like `FakeApp`, with nodes that come and go."""

    program = "tests.node_cluster"

    def remove_node(self) -> None:
        """Take a worker node away at once, with every process on it."""
        self.signal(signal.SIGUSR1)

    def add_node(self) -> None:
        """Add a worker node."""
        self.signal(signal.SIGUSR2)


def _main(config_path: str, port: str) -> None:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from serve_app.app import build
    from serve_app.config import AppConfig

    wishes: list[int] = []
    wished = threading.Event()

    def wish(number: int, _frame: object) -> None:
        wishes.append(number)
        wished.set()

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, wish)
    config = AppConfig.model_validate(json.loads(Path(config_path).read_text()))
    shared = {"object_store_memory": 100 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, **shared})

    def add() -> object:
        return cluster.add_node(num_cpus=4, resources={WORKER: 1}, **shared)

    workers = [add() for _ in range(_NUM_WORKERS)]
    ray.init(address=cluster.address, log_to_driver=False)
    Path(config_path).with_name("ray-address").write_text(cluster.address)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(build(config), name="dreamserve", route_prefix="/")
    while True:
        wished.wait()
        wished.clear()
        while wishes:
            number = wishes.pop(0)
            if number == signal.SIGTERM:
                serve.shutdown()
                ray.shutdown()
                cluster.shutdown()
                return
            if number == signal.SIGUSR1:
                cluster.remove_node(workers.pop(), allow_graceful=False)
            else:
                workers.append(add())


if __name__ == "__main__":
    _main(*sys.argv[1:])
