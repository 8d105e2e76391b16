"""Slow senders and uploads through Serve's own proxy: the wire over a service without jobs."""

import asyncio
import contextlib
import select
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from ray import serve

from tests.serve.conftest import MODELS
from tests.serve.test_logs import lines

pytestmark = pytest.mark.ray

PREFIX = "/arrival"
TEXT2IMG = f"{PREFIX}/api/v6/images/text2img"
BODY_TIMEOUT_S = 3.0


def fake_ingress():
    """The deployment; a class of a function travels to the replica by value."""

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    @serve.ingress()
    class Wire:
        def __serve_build_asgi_app__(self):
            from pathlib import Path

            from serve_app.api import create_api
            from serve_app.config import HttpConfig, JobsConfig, LoggingConfig
            from serve_app.models import ModelEntry
            from serve_app.telemetry import logging
            from serve_app.testing.service import FakeService
            from serve_app.types import Kind

            logging.configure(LoggingConfig())
            entries = [ModelEntry(id=id_, source=Path("x"), kinds=tuple(Kind)) for id_ in MODELS]
            http = HttpConfig(body_timeout_s=BODY_TIMEOUT_S)
            return create_api(FakeService(entries), http, JobsConfig())

    return Wire.bind()


@pytest.fixture(scope="module")
def port(cluster):
    serve.run(fake_ingress(), name="arrival", route_prefix=PREFIX)
    yield cluster
    serve.delete("arrival")


def drip(port, path, header, is_to_the_end):
    """Send a byte at a time until there is an answer; to the end: until the wire is closed too.

    A plain socket: asyncio's loses an answer that it has not read when it cannot write any more.
    """
    piece = b"1\r\n \r\n" if "chunked" in header else b" "
    with socket.create_connection(("127.0.0.1", port), timeout=150) as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\n{header}\r\nhost: a\r\n\r\n".encode())
        while not select.select([wire], [], [], 0.2)[0]:
            with contextlib.suppress(ConnectionError):
                wire.send(piece)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := wire.recv(65_536):
                answer += received
                if not is_to_the_end:
                    break
    return answer.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "header", "status", "is_to_the_end"),
    [
        (TEXT2IMG, "content-length: 1000", 408, True),  # which takes the proxy a while
        (TEXT2IMG, "transfer-encoding: chunked", 408, False),
        (TEXT2IMG, "content-length: 99999999", 413, False),
        (f"{PREFIX}/nowhere", "content-length: 1000", 404, False),
    ],
    ids=["length", "chunked", "too-long", "no-such-path"],
)
def test_24_clients_that_drip_their_bodies_are_sent_away(port, path, header, status, is_to_the_end):
    with ThreadPoolExecutor(24) as clients:
        drips = [clients.submit(drip, port, path, header, is_to_the_end) for _ in range(24)]
        answers = [client.result() for client in drips]
    assert {answer[:12] for answer in answers} == {f"HTTP/1.1 {status}"}


async def test_100_kb_of_headers_are_refused(port):
    async with httpx2.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}{PREFIX}/health/live"
        answer = await client.get(url, headers={"cookie": "c" * 100_000})
    assert (answer.status_code, answer.json()["reason"]) == (431, "headers_too_large")


async def test_client_that_leaves_while_it_sends_is_no_error(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {TEXT2IMG} HTTP/1.1\r\nhost: a\r\nx-request-id: leaver\r\ncontent-length: 99\r\n"
    writer.write(f"{head}\r\n{{".encode())
    await writer.drain()
    await asyncio.sleep(1.5)  # until the replica waits for more, on a busy machine too
    writer.close()
    async with asyncio.timeout(120):
        while not (found := [line for line in lines() if line.get("call_id") == "leaver"]):
            await asyncio.sleep(0.2)
    assert [(line["event"], line["level"]) for line in found] == [("http_request", "info")]


async def test_file_arrives_through_the_proxy(port):
    data = {"model_id": "tiny", "prompt": "a"}
    files = {"init_image": ("a.png", b"\x89PNG" + bytes(5_000_000))}
    async with httpx2.AsyncClient(trust_env=False, timeout=150) as client:
        url = f"http://127.0.0.1:{port}{PREFIX}/api/v6/images/img2img"
        answer = await client.post(url, data=data, files=files)
    assert answer.json()["status"] == "success", answer.text
