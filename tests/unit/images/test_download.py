"""Downloads end in bytes or in a sentence for the client that tells nothing of the inside."""

import asyncio

import pytest
from structlog.testing import capture_logs

from serve_app import errors, net
from serve_app.config import ImagesConfig
from serve_app.images import download
from serve_app.images.download import Downloader
from serve_app.net import Policy

ALLOWED = ImagesConfig(allowed_hosts=("good.test",), download_timeout_s=5)


async def resolve(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture
async def port():
    """A server that answers every call with five bytes."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1]
    listener.close()


async def test_allowed_host_is_downloaded(port):
    async with Downloader(ALLOWED, resolve) as downloader:
        assert await downloader.fetch("init_image", f"http://good.test:{port}/") == b"hello"


async def test_connections_end_with_the_block(monkeypatch):
    closed = []

    async def close(client):
        closed.append(client)

    monkeypatch.setattr(net.GuardedClient, "aclose", close)
    async with Downloader(ALLOWED, resolve) as downloader:
        assert closed == []
    assert closed == [downloader._client]


async def test_limits_of_the_configuration_are_kept(port):
    config = ALLOWED.model_copy(update={"max_bytes": 4})
    async with Downloader(config, resolve) as downloader:
        with pytest.raises(errors.InvalidImage, match="over 4 bytes"):
            await downloader.fetch("init_image", f"http://good.test:{port}/")


def test_every_limit_of_the_configuration_reaches_the_client(monkeypatch):
    given = []
    monkeypatch.setattr(download, "GuardedClient", lambda policy, *_: given.append(policy))
    names = ("allowed_hosts", "allowed_ports", "max_redirects", "connect_timeout_s", "max_bytes")
    values = dict(zip(names, (("a.test",), (8443,), 1, 2.5, 2048), strict=True))
    Downloader(ImagesConfig(**values, download_timeout_s=7))
    assert given == [Policy(**values, timeout_s=7)]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (net.Refused("port 22 is not allowed"), "port 22 is not allowed"),
        (net.ForbiddenAddress("db.test resolves to 10.0.0.7"), "its address is not allowed"),
        (net.Unreachable("10.0.0.7 does not accept"), "its address is not allowed"),
        (net.TooManyRedirects(3), "more than 3 redirects"),
        (net.BadStatus(404), "status 404"),
        (net.TooLarge(1000), "over 1000 bytes"),
        (net.TooSlow(15.0), "longer than 15 s"),
        (net.BadReply("peer 10.0.0.7 closed"), "broken or incomplete"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_failure_becomes_a_sentence_without_addresses(monkeypatch, failure, said):
    async def fail(self, url):
        raise failure

    monkeypatch.setattr(net.GuardedClient, "get", fail)
    async with Downloader(ALLOWED) as downloader:
        with pytest.raises(errors.InvalidImage) as caught:
            await downloader.fetch("mask_image", "http://good.test/")
    message = caught.value.public_message
    assert message.startswith("Unable to fetch image from provided URL (mask_image): ")
    assert said in message
    assert "10.0.0" not in message
    assert list(caught.value.fields) == ["mask_image"]


async def test_forbidden_and_absent_hosts_read_the_same():
    async def absent(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    said = set()
    for resolver in (resolve, absent):
        async with Downloader(ImagesConfig(), resolver) as downloader:
            with pytest.raises(errors.InvalidImage) as caught:
                await downloader.fetch("init_image", "http://inside.test/")
            said.add(caught.value.public_message)
    assert len(said) == 1


async def test_url_stays_out_of_the_log():
    async with Downloader(ImagesConfig(), resolve) as downloader:
        with capture_logs() as lines, pytest.raises(errors.InvalidImage):
            await downloader.fetch("init_image", "http://inside.test/a?signature=canary")
    assert lines[0]["error"] == "ForbiddenAddress"
    assert "canary" not in str(lines)
