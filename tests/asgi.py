"""`send`: one call to an app, as a server makes it; the HTTP client of other tests costs more."""

import asyncio

PIECE = 64 * 1024  # bytes that a server reads at a time


async def send(app, path, data, content_type, headers=()):
    """Post a body; returns the status and the text of the answer."""
    head = {"content-type": content_type, "content-length": str(len(data)), "host": "a.b"}
    head |= dict(headers)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "client": ("a", 1), "server": ("a.b", 80),
        "headers": [(name.encode(), value.encode()) for name, value in head.items()],
    }  # fmt: skip
    at, outgoing = 0, []

    async def receive():
        nonlocal at
        if at > len(data):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        piece = bytes(memoryview(data)[at : at + PIECE])
        at += len(piece) or 1
        has_ended = at >= len(data)
        at += has_ended
        return {"type": "http.request", "body": piece, "more_body": not has_ended}

    async def keep(message):
        outgoing.append(message)

    await app(scope, receive, keep)
    return outgoing[0]["status"], b"".join(part.get("body", b"") for part in outgoing[1:]).decode()
