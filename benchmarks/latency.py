"""What the service adds to one request, and what its processes weigh.

    python -m benchmarks.latency [--rounds 20]

Starts the development configuration, then alternates the documented inpaint request over HTTP with
the same stock diffusers pipeline called directly, on one machine in one run. Prints medians, their
ratio, and the resident memory of every replica.
"""

import argparse
import base64
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import torch
from diffusers import StableDiffusionInpaintPipeline, UniPCMultistepScheduler
from PIL import Image

from serve_app.cli.demo import free_port, wait_until_ready
from serve_app.cli.serving import service
from serve_app.config import AppConfig
from serve_app.models import Catalogue
from serve_app.types import Kind

EXAMPLE = Path("examples/inpaint")
CONFIG = Path("configs/dev.yaml")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    body = _body()
    bare = _bare_call(body)
    port = free_port()
    with (
        tempfile.TemporaryFile() as log,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http,
        service(CONFIG, "127.0.0.1", port, log) as child,
    ):
        wait_until_ready(http, child)

        def call() -> None:
            answer = http.post("/api/v4/dreambooth/inpaint", json=body).json()
            assert answer["status"] == "success", answer

        times = _alternate(rounds, call, bare)
        _report(*times)
        _report_memory(child.pid)


def _alternate(
    rounds: int, call: Callable[[], None], bare: Callable[[], None]
) -> tuple[list[float], list[float]]:
    served: list[float] = []
    direct: list[float] = []
    for number in range(rounds + 2):
        for work, times in ((call, served), (bare, direct)):
            began = time.perf_counter()
            work()
            if number >= 2:  # two rounds of warm-up
                times.append(time.perf_counter() - began)
    return served, direct


def _body() -> dict[str, object]:
    body: dict[str, object] = json.loads((EXAMPLE / "request.json").read_text(encoding="utf-8"))
    for field, name in (("init_image", "init.png"), ("mask_image", "mask.png")):
        data = base64.b64encode((EXAMPLE / name).read_bytes()).decode("ascii")
        body[field] = f"data:image/png;base64,{data}"
    # The stock pipeline knows neither token merging nor crops: compare like with like.
    return {**body, "seed": 1, "tomesd": "no", "full_frame": "yes", "enhance_prompt": "no"}


def _bare_call(body: dict[str, object]) -> Callable[[], None]:
    torch.set_num_threads(1)
    catalogue = Catalogue.load(AppConfig().catalogue, Path.cwd())
    entry = catalogue.find(str(body["model_id"]), Kind.INPAINT)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        entry.source,
        torch_dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
        local_files_only=True,
    )
    pipeline.scheduler = UniPCMultistepScheduler.from_config(
        pipeline.scheduler.config, use_karras_sigmas=True
    )
    pipeline.set_progress_bar_config(disable=True)
    init = Image.open(EXAMPLE / "init.png").convert("RGB")
    mask = Image.open(EXAMPLE / "mask.png").convert("L")

    def bare() -> None:
        pipeline(
            prompt=str(body["prompt"]),
            image=init,
            mask_image=mask,
            height=512,
            width=512,
            num_inference_steps=int(str(body["steps"])),
            guidance_scale=float(str(body["guidance_scale"])),
            strength=float(str(body["strength"])),
            generator=torch.Generator().manual_seed(1),
        )

    return bare


def _report(served: list[float], direct: list[float]) -> None:
    ratios = [a / b for a, b in zip(served, direct, strict=True)]
    print("| call | median ms | min | max |\n|---|---|---|---|")
    for name, times in (("over HTTP", served), ("bare pipeline", direct)):
        row = (statistics.median(times), min(times), max(times))
        print(f"| {name} | " + " | ".join(f"{1000 * value:.0f}" for value in row) + " |")
    print(f"\nratio, pair by pair: median {statistics.median(ratios):.2f}\n")


def _report_memory(pid: int) -> None:
    print("| process | resident MB |\n|---|---|")
    for process in psutil.Process(pid).children(recursive=True):
        name = " ".join(process.cmdline()[:1])
        if name.startswith("ray::ServeReplica"):
            megabytes = process.memory_info().rss / 1e6
            print(f"| {name.removeprefix('ray::ServeReplica:dreamserve:')} | {megabytes:.0f} |")


if __name__ == "__main__":
    main()
