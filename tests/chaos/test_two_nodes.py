"""The day of an operator in four minutes, on a cluster of two nodes that hold models.

Two hot models with two replicas each and a pool of six tail models paint under steady load, while
weights are exchanged three times (once for bad ones), a replica is killed, a node goes and another
comes. The VAE of each generation paints one plain colour, so a picture shows whose it is.
"""

import asyncio
import collections
import io
import itertools
import json
import time

import httpx2
import numpy as np
import pytest
from PIL import Image

from serve_app.cli.demo import free_port
from serve_app.testing.checkpoints import write_random_text2img
from tests.chaos.test_chaos import report
from tests.node_cluster import WORKER, NodeCluster
from tests.weight_files import HARM, rewrite

HOT = ("hot-1", "hot-2")
TAIL = tuple(f"tail-{number}" for number in range(1, 7))
VAE = "vae/diffusion_pytorch_model.safetensors"
CALLERS = 4
CALM_S = 12.0
RECOVERED_S = 120.0
Colour = tuple[int, int, int]


def dye(folder, colour: Colour):
    """Have the decoder paint nothing but a colour."""

    def change(tensors):
        tensors["decoder.conv_out.weight"].zero_()
        for channel, level in enumerate(colour):
            tensors["decoder.conv_out.bias"][channel] = level / 127.5 - 1

    rewrite(folder, VAE, change)


class Weights:
    """The checkpoints, and which colour each generation of each model was given."""

    def __init__(self, folder):
        self._folder = folder
        self._fresh = itertools.product((15, 90, 165, 240), repeat=3)
        self.colours: dict[tuple[str, int], Colour] = {}
        for model_id in (*HOT, *TAIL):
            write_random_text2img(folder / model_id, seed=len(self.colours))
            self.exchange(model_id, generation=0)

    def exchange(self, model_id, generation) -> None:
        colour = next(self._fresh)
        dye(self._folder / model_id, colour)
        self.colours[model_id, generation] = colour

    def spoil(self, model_id) -> None:
        HARM["nan"](self._folder / model_id)


class Customers:
    """Callers that ask again at once, and look at every picture."""

    def __init__(self, http, colours):
        self.made = collections.Counter()
        self.wrong: list[object] = []
        self.slowest_s = 0.0
        self.last_slow_at = 0.0
        self._http = http
        self._colours = colours
        # Hot models get 2 of 3 calls.
        self._models = itertools.cycle([name for tail in TAIL for name in (*HOT, tail)])

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for seed in range(CALLERS):
                group.create_task(self._call_for_ever(seed))

    async def _call_for_ever(self, seed):
        while True:
            model_id = next(self._models)
            begun = time.monotonic()
            answer = await self._call(model_id, seed)
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            if answer["status"] != "success":
                self.wrong.append(answer)
                continue
            generation = answer["meta"].get("generation", 0)
            seen = {await self._colour_of(url) for url in answer["output"]}
            # A pool that loads a tail model between the exchange of its files and the call of
            # model_reload has the new files already, and they are the old generation's for it.
            known = [generation, generation + 1] if model_id in TAIL else [generation]
            if seen not in [{self._colours.get((model_id, one))} for one in known]:
                self.wrong.append((model_id, generation, seen))
            self.made[model_id, generation] += 1

    async def _call(self, model_id, seed):
        body = {"model_id": model_id, "prompt": "a cat", "seed": seed, "samples": 2}
        body |= {"width": 64, "height": 64, "steps": 8, "safety_checker": "no"}
        answer = await self._post("/api/v4/dreambooth", body)
        while answer["status"] == "processing":
            await asyncio.sleep(0.2)
            fetched = await self._post("/api/v4/dreambooth/fetch", {"request_id": answer["id"]})
            answer = {**answer, **fetched}
        return answer

    async def _colour_of(self, url):
        """The one colour of a picture; None if it has several."""
        png = (await self._http.get(url)).content
        colours = np.unique(np.asarray(Image.open(io.BytesIO(png))).reshape(-1, 3), axis=0)
        return tuple(map(int, colours[0])) if len(colours) == 1 else None

    async def _post(self, path, body):
        return (await self._http.post(path, json=body)).json()


@pytest.fixture
def cluster(tmp_path):
    """The application; every model's replicas on worker nodes, one of each per node."""
    pinned = {
        "num_cpus": 0.1,
        "min_replicas": 2,
        "max_replicas": 2,
        "max_replicas_per_node": 1,
        "resources": {WORKER: 0.01},
        "health_check_period_s": 1,
    }
    stage = {"num_cpus": 0, "health_check_period_s": 1}
    app = NodeCluster(
        tmp_path,
        free_port(),
        engine={"painter": "weave", "measure_rows": False},
        jobs={"lease_s": 5, "poll_s": 0.3, "outage_delay_s": 1, "hold_s": 30},
        pool={"memory_bytes": 2 * 10**7, "stats_period_s": 0.5},
        serving={
            "ingress": stage | {"max_ongoing_requests": 512, "target_ongoing_requests": 200},
            "preprocess": stage,
            "upload": stage,
            "safety": stage,
            "janitor": stage,
            "pool": pinned,
        },
    )
    (tmp_path / "models" / "fake.yaml").unlink()
    for model_id in (*HOT, *TAIL):
        entry = f"id: {model_id}\nsource: weights/{model_id}\nkinds: [text2img]\n"
        entry += "native_size_px: 64\ndefaults: {steps: 8, scheduler: DDIMScheduler}\n"
        entry += f"serve: {json.dumps(pinned)}\n" if model_id in HOT else "placement: pool\n"
        (tmp_path / "models" / f"{model_id}.yaml").write_text(entry)
    yield app
    app.kill()


async def reload(http, model_id):
    answer = await http.post("/api/v4/dreambooth/model_reload", json={"model_id": model_id})
    return answer.json()


async def all_there(cluster, http, counts):
    """Wait until every deployment has its replicas; return the seconds that it took."""
    begun = time.monotonic()
    async with asyncio.timeout(RECOVERED_S):
        while any(len(cluster.replicas(name)) < count for name, count in counts.items()) or (
            (await http.get("/health/ready")).status_code != 200
        ):
            await asyncio.sleep(0.3)
    return round(time.monotonic() - begun, 1)


REPLICAS = {**{f"Generator:{model_id}": 2 for model_id in HOT}, "Pool": 2}


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_nothing_is_lost_while_weights_replicas_and_nodes_come_and_go(cluster, tmp_path):
    weights = Weights(tmp_path / "weights")
    figures = {"start_s": round(cluster.start(), 1)}
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(
        base_url=cluster.base_url, trust_env=False, timeout=120, limits=limits
    ) as http:
        figures["two_nodes_s"] = await all_there(cluster, http, REPLICAS)
        customers = Customers(http, weights.colours)
        calling = asyncio.create_task(customers.run())
        try:
            await operate(cluster, http, weights, figures)
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    figures["made"] = customers.made.total()
    figures["slowest_s"] = round(customers.slowest_s, 1)
    figures["by_generation"] = {f"{m}@{g}": n for (m, g), n in sorted(customers.made.items())}
    report("two-nodes", figures)
    assert not customers.wrong, customers.wrong[:5]
    assert {"hot-1@1", "tail-1@1", "hot-2@0"} <= figures["by_generation"].keys()
    assert not any(name.startswith("hot-2@1") for name in figures["by_generation"])


async def operate(cluster, http, weights, figures):
    """Exchange weights three times, kill a replica, take a node away, add one."""
    await asyncio.sleep(CALM_S)
    for model_id in ("hot-1", "tail-1"):
        weights.exchange(model_id, generation=1)
        begun = time.monotonic()
        answer = await reload(http, model_id)
        assert answer["status"] == "success", answer
        figures[f"reload_{model_id}_s"] = round(time.monotonic() - begun, 1)
        await asyncio.sleep(CALM_S)
    weights.spoil("hot-2")
    answer = await reload(http, "hot-2")
    assert (answer["status"], answer["reason"]) == ("error", "reload_failed")
    await asyncio.sleep(CALM_S)
    cluster.replicas("Generator:hot-1")[0].kill()
    figures["replica_back_s"] = await all_there(cluster, http, REPLICAS)
    await asyncio.sleep(CALM_S)
    cluster.remove_node()
    await asyncio.sleep(CALM_S)
    cluster.add_node()
    figures["node_back_s"] = await all_there(cluster, http, REPLICAS)
    await asyncio.sleep(CALM_S)
