"""`dreamserve demo`: what a newcomer sees first. A plain client of a service that it starts."""

import base64
import contextlib
import functools
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx2
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from serve_app.cli import bundle, sheet
from serve_app.cli.serving import service

__all__ = ["DemoFailedError", "free_port", "show", "wait_until_ready"]

_EXAMPLE = bundle.folder() / "examples" / "inpaint"
_START_TIMEOUT_S = 400.0  # a machine of two cores takes 30, with other work 150
_JOB_TIMEOUT_S = 300.0
_POLL_S = 0.3
# Below what Linux gives away by itself where nobody has set another range, 32768 and above: of that
# Ray takes some dozens of ports while it starts, before the service listens on its own.
_PORTS = range(20_000, 32_768)

_console = Console()
Answer = dict[str, Any]


class DemoFailedError(Exception):
    """Something that the newcomer has to read; shown without a stack trace."""


def show(config: Path, out: Path) -> None:
    """Start, ask, save, stop; exit code 1 with the reason when anything goes wrong."""
    out.mkdir(parents=True, exist_ok=True)
    host, port = "127.0.0.1", free_port()
    client = httpx2.Client(
        base_url=f"http://{host}:{port}", timeout=_JOB_TIMEOUT_S, trust_env=False
    )
    log_path = out / "service.log"
    try:
        with log_path.open("wb") as log, client, _bars() as bars:
            with service(config, host, port, log) as child:
                starting = bars.add_task("starting the service", total=None)
                wait_until_ready(client, child)
                bars.update(starting, total=1, completed=1)
                answer, picture = _inpaint(bars, client)
                stopping = bars.add_task("stopping the service", total=None)
            bars.update(stopping, total=1, completed=1)
    except (DemoFailedError, httpx2.HTTPError) as exc:
        _console.print(f"[red]The demo failed: {exc}[/red]\nThe service's log is {log_path}")
        raise typer.Exit(1) from exc
    (out / "response.json").write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    (out / "result.png").write_bytes(picture)
    sheet.write(out / "sheet.png", _EXAMPLE / "init.png", _EXAMPLE / "mask.png", picture)
    _console.print_json(json.dumps(answer))
    _console.print(f"Look at {out / 'sheet.png'}: the picture, its mask, and what was painted.")


def free_port() -> int:
    """Return a port that nobody listens on at the moment; another one each time."""
    for port in _drawn_ports():
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DemoFailedError("no port is free")


@functools.cache
def _drawn_ports() -> Iterator[int]:
    draw = random.SystemRandom()  # processes that were given the same seed draw other ports
    return iter(draw.sample(_PORTS, len(_PORTS)))


def _bars() -> Progress:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_console)


def wait_until_ready(client: httpx2.Client, child: Popen[bytes]) -> None:
    """Wait until every model can answer.

    Raises:
        DemoFailedError: the service ended, or took too long.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise DemoFailedError("the service ended while it started")
        with contextlib.suppress(httpx2.TransportError):  # nobody listens yet
            if client.get("/health/ready").status_code == httpx2.codes.OK:
                return
        time.sleep(_POLL_S)
    raise DemoFailedError(f"the service was not ready after {_START_TIMEOUT_S:.0f} s")


def _inpaint(bars: Progress, client: httpx2.Client) -> tuple[Answer, bytes]:
    bar = bars.add_task("painting", total=None)
    answer: Answer = client.post("/api/v4/dreambooth/inpaint", json=_documented_body()).json()
    deadline = time.monotonic() + _JOB_TIMEOUT_S
    while answer["status"] == "processing" and time.monotonic() < deadline:
        bars.update(bar, total=1.0, completed=answer.get("progress", 0.0))
        time.sleep(_POLL_S)
        answer = {
            **answer,
            **client.post(answer["fetch_result"], json={"key": "demo"}).json(),
        }
    if answer["status"] != "success":
        raise DemoFailedError(f"the service answered {json.dumps(answer)}")
    picture = client.get(answer["output"][0]).raise_for_status().content
    bars.update(bar, total=1, completed=1)
    return answer, picture


def _documented_body() -> Answer:
    """The body of the API's inpaint page with our example; the pictures travel inline."""
    body: Answer = json.loads((_EXAMPLE / "request.json").read_text(encoding="utf-8"))
    for field, name in (("init_image", "init.png"), ("mask_image", "mask.png")):
        data = base64.b64encode((_EXAMPLE / name).read_bytes()).decode("ascii")
        body[field] = f"data:image/png;base64,{data}"
    return body
