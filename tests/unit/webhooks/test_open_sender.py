"""A sender from settings, over the guarded client, to a receiver on this machine."""

import http.server
import threading

import pytest

from serve_app.config import WebhooksConfig
from serve_app.testing.jobs import MemoryOutbox
from serve_app.webhooks import open_sender
from serve_app.webhooks.protocol import DeliveryState


class _Busy(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503)
        self.send_header("retry-after", "500")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_args):
        pass


@pytest.fixture
def busy_url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Busy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_receiver_that_asks_for_time_gets_it(busy_url):
    now = [0.0]
    outbox = MemoryOutbox(lambda: now[0])
    outbox.insert(1, "key_a", busy_url, "{}")
    sender = open_sender(outbox, WebhooksConfig(allowed_hosts=("localhost",)))
    assert await sender.deliver_due() == 1
    now[0] += 499
    assert await sender.deliver_due() == 0
    now[0] += 2
    assert await sender.deliver_due() == 1


async def test_schedule_of_the_settings_is_kept(busy_url):
    outbox = MemoryOutbox()
    outbox.insert(1, "key_a", busy_url, "{}")
    config = WebhooksConfig(allowed_hosts=("localhost",), schedule_s=(0,))
    await open_sender(outbox, config).deliver_due()
    assert await outbox.state_of(1) is DeliveryState.FAILED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("http://127.0.0.1/hook", DeliveryState.FAILED),
        ("http://10.1.2.3/hook", DeliveryState.FAILED),
        ("http://169.254.169.254/hook", DeliveryState.FAILED),
        ("http://localhost/hook", DeliveryState.FAILED),
        ("http://[::1]/hook", DeliveryState.FAILED),
        ("http://example.com:22/hook", DeliveryState.FAILED),
        ("http://nobody.invalid/hook", DeliveryState.PENDING),
    ],
)
async def test_address_forbidden_for_good_gets_one_attempt(url, state):
    """A name that does not resolve may do so tomorrow."""
    outbox = MemoryOutbox()
    outbox.insert(1, "key_a", url, "{}")
    await open_sender(outbox, WebhooksConfig()).deliver_due()
    assert await outbox.state_of(1) is state
