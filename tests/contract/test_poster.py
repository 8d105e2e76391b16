"""What holds for every `Poster`: the guarded client over real HTTP and the fake."""

import http.server
import threading

import pytest

from serve_app.net import GuardedClient, NetFailure, Policy, Refused
from serve_app.testing.webhooks import FakePoster
from serve_app.webhooks import GuardedPoster
from serve_app.webhooks.protocol import Reply


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, body, dict(self.headers)))
        self.send_response(int(self.path.rsplit("/", 1)[-1]))
        self.send_header("location", "/204")
        if self.path == "/429":
            self.send_header("retry-after", "120")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_args):
        pass


class RealBench:
    def __init__(self, server, client):
        self.url = f"http://localhost:{server.server_port}"
        self.poster = GuardedPoster(client)
        self._server = server

    def answers(self, status):
        return f"{self.url}/{status}"

    def nobody(self):
        return "http://localhost:9/"

    def refused(self):
        return "ftp://localhost/"

    def seen(self):
        return [
            (f"{self.url}{path}", body, {name.lower(): value for name, value in headers.items()})
            for path, body, headers in self._server.seen
        ]


class FakeBench:
    def __init__(self):
        self.poster = FakePoster()

    def answers(self, status):
        url = f"http://receiver/{status}"
        self.poster.answers[url] = [Reply(status, "120" if status == 429 else None)]
        return url

    def nobody(self):
        self.poster.answers["http://nobody/"] = [NetFailure("no")]
        return "http://nobody/"

    def refused(self):
        self.poster.answers["ftp://receiver/"] = [Refused("only http")]
        return "ftp://receiver/"

    def seen(self):
        return [(sent.url, sent.content, sent.headers) for sent in self.poster.sent]


@pytest.fixture(params=["fake", "guarded"])
async def receiver(request):
    if request.param == "fake":
        yield FakeBench()
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    async with GuardedClient(Policy(allowed_hosts=("localhost",))) as client:
        yield RealBench(server, client)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 204, 302, 410, 500])
async def test_post_returns_the_status_and_follows_nothing(receiver, status):
    url = receiver.answers(status)
    reply = await receiver.poster.post(url, b"{}", {"webhook-id": "msg_a"})
    assert reply.status == status
    assert [seen[0] for seen in receiver.seen()] == [url]


@pytest.mark.parametrize(("status", "retry_after"), [(429, "120"), (503, None)])
async def test_post_returns_when_to_come_back(receiver, status, retry_after):
    reply = await receiver.poster.post(receiver.answers(status), b"{}", {})
    assert reply == Reply(status, retry_after)


async def test_post_sends_body_and_headers_as_they_are(receiver):
    body = '{"track_id": "é"}'.encode()
    headers = {"webhook-id": "msg_a", "content-type": "application/json"}
    await receiver.poster.post(receiver.answers(204), body, headers)
    ((_, content, sent),) = receiver.seen()
    assert content == body
    assert sent["webhook-id"] == "msg_a"
    assert sent["content-type"] == "application/json"


async def test_post_to_nobody_fails(receiver):
    with pytest.raises(NetFailure):
        await receiver.poster.post(receiver.nobody(), b"{}", {})


async def test_post_to_no_web_address_is_refused(receiver):
    with pytest.raises(Refused):
        await receiver.poster.post(receiver.refused(), b"{}", {})
