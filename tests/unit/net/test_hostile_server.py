"""Live loopback servers that are silent, slow, endless, broken or lying."""

import asyncio
import gzip

import pytest

from serve_app.net import BadReply, BadStatus, TooLarge, TooSlow


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: http://[x]/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: /" + b"a" * 8192 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Go\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200_000 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
    ids=[
        "no_location",
        "bad_location",
        "long_location",
        "binary_location",
        "shorter_than_declared",
        "length_no_number",
        "bad_chunk",
        "cut_chunk",
        "huge_header",
        "many_headers",
        "not_http",
        "nothing",
    ],
)
async def test_broken_reply_raises_bad_reply(serve, reply, fetch):
    with pytest.raises(BadReply):
        await fetch(await serve(reply))


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 404, 500, 503])
async def test_other_status_raises_bad_status(serve, status, fetch):
    server = await serve(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    with pytest.raises(BadStatus) as caught:
        await fetch(server)
    assert caught.value.status == status


async def test_declared_length_over_the_limit_is_not_read(serve, fetch):
    server = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
    with pytest.raises(TooLarge) as caught:
        await fetch(server, max_bytes=1000)
    assert caught.value.limit_bytes == 1000


async def test_endless_body_ends_at_the_limit(serve, fetch):
    async def endless(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    with pytest.raises(TooLarge) as caught:
        await fetch(await serve(endless), max_bytes=300_000)
    assert caught.value.limit_bytes == 300_000


@pytest.mark.parametrize("head", [b"Content-Length: 5\r\n", b""], ids=["declared", "undeclared"])
async def test_body_of_exactly_the_limit_passes_and_no_larger_one(serve, head, fetch):
    server = await serve(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nhello")
    assert await fetch(server, max_bytes=5) == b"hello"
    with pytest.raises(TooLarge):
        await fetch(server, max_bytes=4)


async def test_silent_server_ends_at_the_deadline(serve, fetch):
    async def silent(reader, writer):
        await reader.read()

    with pytest.raises(TooSlow) as caught:
        await fetch(await serve(silent), timeout_s=0.2)
    assert caught.value.limit_s == 0.2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
async def test_dripping_server_ends_at_the_deadline(serve, head, fetch):
    async def drip(reader, writer):
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    with pytest.raises(TooSlow):
        await fetch(await serve(drip), timeout_s=0.2)


async def test_endless_interim_replies_end_at_the_deadline(serve, fetch):
    async def interim(reader, writer):
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises(TooSlow):
        await fetch(await serve(interim), timeout_s=0.2)


async def test_gzip_bomb_is_not_unpacked(serve, fetch):
    bomb = gzip.compress(bytes(20_000_000))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    assert await fetch(await serve(head.encode() + bomb), max_bytes=100_000) == bomb
