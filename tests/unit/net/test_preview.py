"""What would be refused is told without a call; names are looked up as for one."""

import asyncio
import socket

import pytest

from serve_app.net import ForbiddenAddress, Policy, Preview, Refused, UnknownHost, Unreachable

ANSWERS = {
    "public.test": ["1.1.1.1"],
    "private.test": ["10.0.0.7"],
    "empty.test": [],
    "broken.test": socket.gaierror(socket.EAI_AGAIN, "try again"),
    "none.test": socket.gaierror(socket.EAI_NONAME, "not known"),
}


class Scene:
    def __init__(self, **limits):
        self.asked = []
        self._preview = Preview(Policy(**limits), self._resolve)

    async def _resolve(self, host, port):
        self.asked.append((host, port))
        if host == "slow.test":
            await asyncio.Event().wait()
        answer = ANSWERS[host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check(self, *urls):
        for url in urls:
            await self._preview.check(url)


async def test_host_is_looked_up_with_the_port_that_would_be_dialled():
    scene = Scene(allowed_ports=(80, 443, 8080))
    await scene.check("http://public.test/", "https://public.test/", "http://PUBLIC.test:8080/")
    assert scene.asked == [("public.test", 80), ("public.test", 443), ("public.test", 8080)]


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("private.test", ForbiddenAddress),
        ("empty.test", UnknownHost),
        ("none.test", UnknownHost),
        ("broken.test", Unreachable),
        ("slow.test", Unreachable),
    ],
)
async def test_failure_says_what_came_of_the_lookup(host, why):
    with pytest.raises(Unreachable) as caught:
        async with asyncio.timeout(10):
            await Scene(connect_timeout_s=0.05).check(f"http://{host}/")
    assert type(caught.value) is why


async def test_text_that_is_refused_and_hosts_that_are_allowed_are_not_looked_up():
    scene = Scene(allowed_hosts=("private.test",))
    await scene.check("http://private.test:9/")
    with pytest.raises(Refused):
        await scene.check("http://127.0.0.1/")
    assert scene.asked == []


async def test_names_of_this_machine_are_asked_of_its_own_resolver():
    await Preview(Policy(allowed_hosts=("a.test",))).check("http://a.test/")
    with pytest.raises(UnknownHost):
        await Preview(Policy()).check("http://a..b/")
