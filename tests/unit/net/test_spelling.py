"""Every way we know of to write an address of the inside into a URL."""

import pytest

from serve_app.net import Refused, Unreachable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SPELLINGS = {
    "loopback": "http://127.0.0.1:{port}/",
    "loopback_other": "http://127.8.9.10:{port}/",
    "localhost": "http://localhost:{port}/",
    "localhost_dot": "http://localhost.:{port}/",
    "localhost_upper": "http://LOCALHOST:{port}/",
    "unspecified": "http://0.0.0.0:{port}/",
    "zero": "http://0:{port}/",
    "short": "http://127.1:{port}/",
    "decimal": "http://2130706433:{port}/",
    "hex": "http://0x7f000001:{port}/",
    "hex_dotted": "http://0x7f.0x0.0x0.0x1:{port}/",
    "hex_short": "http://0x7f.1:{port}/",
    "octal": "http://0177.0.0.1:{port}/",
    "octal_short": "http://0177.1:{port}/",
    "mixed_bases": "http://0x7f.0.1:{port}/",
    "trailing_dot": "http://127.0.0.1.:{port}/",
    "v6_loopback": "http://[::1]:{port}/",
    "v6_mapped": "http://[::ffff:127.0.0.1]:{port}/",
    "v6_mapped_hex": "http://[::ffff:7f00:1]:{port}/",
    "v6_compatible": "http://[::127.0.0.1]:{port}/",
    "v6_unspecified": "http://[::]:{port}/",
    "v6_zone": "http://[fe80::1%25lo]:{port}/",
    "v6_zone_bare": "http://[::1%lo]:{port}/",
    "percent_encoded": "http://%31%32%37.0.0.1:{port}/",
    "percent_dot": "http://127%2e0%2e0%2e1:{port}/",
    "full_width": "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}/",
    "circled": "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{port}/",
    "ideographic_stop": "http://127\u30020\u30020\u30021:{port}/",
    "soft_hyphen": "http://local\u00adhost:{port}/",
    "userinfo": "http://good.test@127.0.0.1:{port}/",
    "userinfo_password": "http://a:b@127.0.0.1:{port}/",
    "userinfo_fragment": "http://127.0.0.1:{port}#@good.test/",
    "backslash": "http://good.test\\@127.0.0.1:{port}/",
    "backslash_host": "http://127.0.0.1:{port}\\.good.test/",
    "tab": "http://127.0.0.1\t:{port}/",
    "newline": "http://127.0.0.1:{port}/\r\nHost: x",
    "nul": "http://127.0.0.1\x00.good.test:{port}/",
    "space": "http://127.0.0.1 .good.test:{port}/",
    "no_slashes": "http:127.0.0.1:{port}/",
    "no_host": "http:///127.0.0.1:{port}/",
    "no_scheme": "//127.0.0.1:{port}/",
    "file": "file:///etc/passwd",
    "ftp": "ftp://127.0.0.1:{port}/",
    "gopher": "gopher://127.0.0.1:{port}/_GET",
    "unix": "unix:///run/x.sock",
    "javascript": "javascript:alert(1)",
    "websocket": "ws://127.0.0.1:{port}/",
    "port_word": "http://127.0.0.1:http/",
    "port_negative": "http://127.0.0.1:-1/",
    "port_huge": "http://good.test:99999/",
    "port_zero": "http://good.test:0/",
    "host_dots": "http://a..b:{port}/",
    "host_long": "http://" + "a" * 300 + ":{port}/",
    "url_long": "http://127.0.0.1:{port}/" + "a" * 9000,
    "empty": "",
    "surrogate": "http://127.0.0.1\ud800:{port}/",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
async def test_url_of_the_inside_is_refused_without_a_dial(serve, client, spelling):
    server = await serve(OK)
    url = spelling.replace("{port}", str(server.port))
    async with client(None, allowed_ports=(server.port,)) as guarded:
        with pytest.raises((Refused, Unreachable)):
            await guarded.get(url)
    assert server.calls == 0


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "0",
            "[::1]",
        ),
        *(
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "[::ffff:127.0.0.1]",
            "10.0.0.1",
            "169.254.169.254",
        ),
        *("192.168.1.1", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "\uff11\uff12\uff17.1"),
    ],
    ids=ascii,
)
async def test_address_of_the_inside_is_refused_before_any_lookup(client, host):
    """Refused, not unreachable: no answer of a resolver can change it."""

    async def resolve(host: str, port: int) -> list[str]:
        pytest.fail("looked up")

    async with client(resolve, allowed_hosts=()) as guarded:
        for call in (guarded.get(f"http://{host}/"), guarded.post(f"http://{host}/", b"", {})):
            with pytest.raises(Refused):
                await call


@pytest.mark.parametrize(
    "url",
    [
        "http://user@good.test/",
        "http://user:secret@good.test/",
        "http://good.test%00/",
        "http://good.test%2f/",
        "http://good.test|x/",
        "http://.good.test/",
        "http://[fe80::1%25lo]/",
        "http://good.test:0/",
        "http://good.test:65536/",
        "http://good.test:-1/",
        "http://good.test/" + "a" * 8192,
        "ftp://good.test/",
        "good.test/",
    ],
)
async def test_unacceptable_text_is_refused_before_any_lookup_also_for_an_allowed_host(client, url):
    async def resolve(host: str, port: int) -> list[str]:
        pytest.fail("looked up")

    async with client(resolve, allowed_hosts=("good.test", "fe80::1%lo")) as guarded:
        with pytest.raises(Refused):
            await guarded.get(url)
