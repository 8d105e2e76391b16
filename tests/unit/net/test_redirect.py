"""Redirects: followed by hand, each judged anew, all under one deadline."""

import asyncio

import pytest

from serve_app.net import (
    BadStatus,
    ForbiddenAddress,
    PostReply,
    Refused,
    TooManyRedirects,
    TooSlow,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Go\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_followed(serve, status, fetch):
    last = await serve(OK)
    first = await serve(redirect(f"http://good.test:{last.port}/next", status))
    assert await fetch(first) == b"hello"
    assert last.requests[0].startswith(b"GET /next ")


async def test_relative_redirect_is_followed(serve, fetch):
    async def answer(reader, writer):
        writer.write(OK if len(server.requests) == 2 else redirect("../b?c"))

    server = await serve(answer)
    assert await fetch(server, "/a/x") == b"hello"
    assert server.requests[1].startswith(b"GET /b?c ")


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.1:{port}/", Refused),
        ("http://[::1]:{port}/", Refused),
        ("http://other.test:{port}/", ForbiddenAddress),
        ("//0:{port}", Refused),
    ],
)
async def test_redirect_to_the_inside_is_refused_without_a_dial(serve, location, why, fetch):
    inside = await serve(OK)
    first = await serve(redirect(location.replace("{port}", str(inside.port))))
    with pytest.raises(why):
        await fetch(first, allowed_ports=(inside.port,))
    assert inside.calls == 0


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://good.test/", "data:,x"])
async def test_redirect_to_another_scheme_is_refused(serve, location, fetch):
    with pytest.raises(Refused):
        await fetch(await serve(redirect(location)))


async def test_name_that_turns_inside_between_hops_is_refused(serve, client):
    answers = ["127.0.0.1", "10.0.0.1"]

    async def rebind(host: str, port: int) -> list[str]:
        return [answers.pop(0)]

    async def answer(reader, writer):
        writer.write(redirect(f"http://rebind.test:{server.port}/"))

    server = await serve(answer)
    async with client(rebind, allowed_ports=(server.port,)) as guarded:
        with pytest.raises(ForbiddenAddress):
            await guarded.get(f"http://good.test:{server.port}/")
    assert server.calls == 1


async def test_redirect_loop_ends_at_the_limit(serve, fetch):
    server = await serve(redirect("/again"))
    with pytest.raises(TooManyRedirects) as caught:
        await fetch(server, max_redirects=3)
    assert (server.calls, caught.value.limit) == (4, 3)


async def test_longest_location_is_followed(serve, fetch):
    """One character more is `long_location` among the broken replies."""

    async def answer(reader, writer):
        writer.write(OK if len(server.requests) == 2 else redirect("/" + "a" * 8191))

    server = await serve(answer)
    assert await fetch(server) == b"hello"


@pytest.mark.parametrize("status", [300, 304, 305, 306, 309])
async def test_other_status_of_its_class_is_no_redirect(serve, status, fetch):
    server = await serve(redirect("/again", status))
    with pytest.raises(BadStatus):
        await fetch(server)
    assert server.calls == 1


async def test_deadline_covers_all_hops_together(serve, fetch):
    async def slow_hop(reader, writer):
        await asyncio.sleep(0.15)
        writer.write(redirect("/again"))

    with pytest.raises(TooSlow):
        await fetch(await serve(slow_hop), timeout_s=0.35, max_redirects=10)


async def test_post_returns_the_status_and_follows_no_redirect(serve, client):
    inside = await serve(OK)
    server = await serve(redirect(f"http://good.test:{inside.port}/"))
    async with client() as guarded:
        url = f"http://good.test:{server.port}/hook"
        answer = await guarded.post(url, b"{}", {"Content-Type": "application/json"})
    assert answer == PostReply(302)
    assert inside.calls == 0
    request = server.requests[0].lower()
    assert request.startswith(b"post /hook ")
    assert b"content-length: 2\r\n" in request
    assert b"content-type: application/json\r\n" in request


async def test_post_tells_when_the_receiver_wants_to_be_asked_again(serve, client):
    server = await serve(b"HTTP/1.1 503 Busy\r\nRETRY-AFTER: 120\r\nContent-Length: 0\r\n\r\n")
    async with client() as guarded:
        answer = await guarded.post(f"http://good.test:{server.port}/hook", b"", {})
    assert answer == PostReply(503, "120")
