"""Where webhooks may go, told when a call comes."""

import asyncio
import socket
import ssl
import time

import pytest

from serve_app import errors
from serve_app.config import WebhooksConfig
from serve_app.net import (
    ForbiddenAddress,
    GuardedClient,
    NetFailure,
    Policy,
    Refused,
    UnknownHost,
)
from serve_app.net.transport import SystemResolver
from serve_app.webhooks import Receivers

HIDDEN = "The webhook must lead to a host that can be found on the public internet."
NAMES = {
    "public.test": ["93.184.216.34"],
    "private.test": ["10.0.0.7"],
    "mixed.test": ["93.184.216.34", "127.0.0.1"],
    "six.test": ["2606:2800:220:1:248:1893:25c8:1946"],
    "metadata.test": ["169.254.169.254"],
    "empty.test": [],
}


class Names:
    """A resolver that knows NAMES; `slow.test` never answers, and `broken.test` fails for now."""

    def __init__(self):
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append((host, port))
        if host == "slow.test":
            await asyncio.Event().wait()
        if host == "broken.test":
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return NAMES[host]


def receivers(names=None, **settings):
    return Receivers(WebhooksConfig(**{"lookup_timeout_s": 0.05} | settings), names or Names())


async def refusal(url, names=None, **settings):
    with pytest.raises(errors.InvalidRequest) as caught:
        await receivers(names, **settings).check(url)
    assert caught.value.field == "webhook"
    return caught.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "https://public.test/hook?token=1",
        "http://public.test",
        "http://PUBLIC.test:443/",
        "https://six.test/",
        "https://slow.test/",
        "https://broken.test/",
    ],
)
async def test_webhook_that_may_be_sent_is_accepted(url):
    await receivers().check(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://public.test:8080/", "The webhook cannot be called: port 8080 is not allowed."),
        ("https://public.test:0/", "The webhook cannot be called: port 0 is not allowed."),
        ("https://user:secret@public.test/", "user name or password"),
        ("https://pub%2elic.test/", "no valid host name"),
        ("https://private.test/", HIDDEN),
        ("https://mixed.test/", HIDDEN),
        ("https://metadata.test/", HIDDEN),
        ("https://empty.test/", HIDDEN),
        ("https://no-such.test/", HIDDEN),
    ],
)
async def test_webhook_that_would_be_refused_is_refused_at_once(url, reason):
    assert reason in await refusal(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "[::1]", "[fd00::1]", "2130706433",
     "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "localhost"],
)  # fmt: skip
async def test_address_of_the_inside_is_refused_in_every_spelling(host):
    system = SystemResolver()
    assert await refusal(f"http://{host}/hook", names=system) in (
        HIDDEN,
        "The webhook cannot be called: its address is not allowed.",  # told by its text alone
        "The webhook cannot be called: the URL has no valid host name.",
    )
    system.close()


async def test_private_host_and_one_that_does_not_exist_are_told_apart_by_nothing():
    assert await refusal("https://private.test/") == await refusal("https://no-such.test/")


async def test_allowed_host_is_accepted_on_any_port_and_not_looked_up():
    names = Names()
    allowed = receivers(names, allowed_hosts=("private.test", "127.0.0.1"))
    await allowed.check("http://private.test:8080/")
    await allowed.check("http://127.0.0.1:9/")
    assert names.asked == []


async def test_name_servers_that_do_not_answer_hold_a_call_for_the_set_time_only():
    began = time.monotonic()
    async with asyncio.timeout(5):
        await receivers(lookup_timeout_s=0.1).check("https://slow.test/")
    assert time.monotonic() - began >= 0.09


@pytest.mark.parametrize(
    "url",
    ["http://private.test/", "http://mixed.test/", "http://no-such.test/", "http://empty.test/",
     "http://broken.test/", "http://public.test:81/", "http://a@public.test/", "http://[::1]:x/"],
)  # fmt: skip
async def test_client_that_sends_would_refuse_the_same(url):
    names, config = Names(), WebhooksConfig()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with GuardedClient(Policy(allowed_ports=config.allowed_ports), names, tls) as client:
        with pytest.raises(NetFailure) as sent:
            await client.post(url, b"", {})
    if isinstance(sent.value, Refused | ForbiddenAddress | UnknownHost):
        await refusal(url)
    else:
        await receivers().check(url)
