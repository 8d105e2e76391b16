"""What a policy allows, by the text of a URL alone."""

import pytest

from serve_app.net.failure import Refused
from serve_app.net.judge import MAX_URL_CHARS, Judge, Policy

STRICT = Judge(Policy())
LENIENT = Judge(Policy(allowed_hosts=("Good.Test.", "10.0.0.1"), allowed_ports=(8443,)))


def refused(judge: Judge, url: str) -> str:
    with pytest.raises(Refused) as caught:
        judge.read(url)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def test_policy_is_strict_where_nothing_is_said():
    assert Policy() == Policy((), (80, 443), 3, 15.0, 5.0, 20 * 1024 * 1024)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test/",
        "https://a.test/",
        "http://a.test:443/",
        "https://a.test:80/",
        "http://_a-1.",
    ],
)
def test_public_host_is_accepted_on_the_ports_of_its_schemes(url):
    assert str(STRICT.read(url)).startswith(url)


@pytest.mark.parametrize("port", [1, 79, 81, 442, 444, 8080, 65535])
def test_port_is_named_where_it_is_not_allowed(port):
    assert refused(STRICT, f"http://a.test:{port}/") == f"port {port} is not allowed"


def test_default_ports_are_judged_as_if_they_were_written():
    assert refused(LENIENT, "http://a.test/") == "port 80 is not allowed"
    assert refused(LENIENT, "https://a.test/") == "port 443 is not allowed"
    assert LENIENT.read("https://a.test:8443/").port == 8443


@pytest.mark.parametrize("host", ["good.test", "GOOD.TEST", "good.test.", "10.0.0.1"])
@pytest.mark.parametrize("port", [1, 8080, 65535])
def test_allowed_host_is_accepted_in_any_spelling_on_any_port(host, port):
    assert LENIENT.allows(host) is True
    assert LENIENT.read(f"http://{host}:{port}/").port == port


def test_other_hosts_are_not_those_that_are_allowed():
    assert LENIENT.allows("good.test.evil") is False
    assert refused(LENIENT, "http://10.0.0.2:8443/") == "its address is not allowed"
    for port in (0, 65536):
        assert refused(LENIENT, f"http://good.test:{port}/") == f"port {port} is not allowed"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a.test/", "only http and https URLs are accepted"),
        ("http://user@a.test/", "a URL with a user name or password is not accepted"),
        ("http://a%00.test/", "the URL has no valid host name"),
        ("http:///x", "the URL has no valid host name"),
        ("http://a.test:x/", "the URL is not valid"),
    ],
)
def test_reason_says_what_is_wrong_with_the_text(url, reason):
    assert refused(STRICT, url) == reason


def test_longest_url_is_accepted_and_none_beyond():
    longest = "http://a.test/".ljust(MAX_URL_CHARS, "x")
    assert str(STRICT.read(longest)) == longest
    assert refused(STRICT, longest + "x") == "the URL has more than 8192 characters"
