"""The address table, against hand-picked members of every special range and against stdlib."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.net.address import is_inside, is_public

REFUSED = {
    "this_network": "0.0.0.0",
    "this_network_last": "0.255.255.255",
    "private_10": "10.0.0.1",
    "cgnat": "100.64.0.1",
    "cgnat_metadata": "100.100.100.200",
    "cgnat_last": "100.127.255.255",
    "loopback": "127.0.0.1",
    "loopback_last": "127.255.255.255",
    "azure_agent": "168.63.129.16",
    "link_local": "169.254.0.1",
    "metadata": "169.254.169.254",
    "private_172": "172.16.0.1",
    "private_172_last": "172.31.255.255",
    "protocol_assignments": "192.0.0.1",
    "protocol_assignments_anycast": "192.0.0.9",
    "protocol_assignments_metadata": "192.0.0.192",
    "documentation_1": "192.0.2.1",
    "relay_6to4": "192.88.99.1",
    "private_192": "192.168.0.1",
    "benchmarking": "198.19.255.255",
    "documentation_2": "198.51.100.1",
    "documentation_3": "203.0.113.1",
    "multicast": "224.0.0.1",
    "multicast_last": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6_unspecified": "::",
    "v6_loopback": "::1",
    "v6_compatible_private": "::127.0.0.1",
    "v6_compatible_public": "::8.8.8.8",
    "v6_mapped_private": "::ffff:10.0.0.1",
    "v6_mapped_public": "::ffff:8.8.8.8",
    "v6_translated": "::ffff:0:127.0.0.1",
    "v6_nat64_private": "64:ff9b::a9fe:a9fe",
    "v6_nat64_public": "64:ff9b::808:808",
    "v6_nat64_local": "64:ff9b:1::a00:1",
    "v6_discard": "100::1",
    "v6_teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "v6_benchmarking": "2001:2::1",
    "v6_orchid": "2001:10::1",
    "v6_orchid2": "2001:20::1",
    "v6_drone_ids": "2001:30::1",
    "v6_documentation": "2001:db8::1",
    "v6_6to4_private": "2002:7f00:1::1",
    "v6_6to4_public": "2002:808:808::1",
    "v6_6bone": "3ffe::1",
    "v6_documentation_2": "3fff::1",
    "v6_documentation_2_last": "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
    "v6_srv6": "5f00::1",
    "v6_unique_local": "fd00:ec2::254",
    "v6_unique_local_fc": "fc00::1",
    "v6_link_local": "fe80::1",
    "v6_site_local": "fec0::1",
    "v6_multicast": "ff02::1",
    "v6_isatap_private": "2600::5efe:10.0.0.1",
    "v6_isatap_public": "2600::200:5efe:8.8.8.8",
    "v6_zone": "fe80::1%eth0",
    "v6_zone_on_public": "2600::1%eth0",
    "name": "localhost",
    "empty": "",
    "short": "127.1",
}
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "11.0.0.0",
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2600::1",
    "2a00:1450:4001::1",
    "3fff:1000::1",
]


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_special_address_is_not_public(address):
    assert is_public(address) is False


@pytest.mark.parametrize("address", PUBLIC)
def test_neighbour_of_special_range_is_public(address):
    assert is_public(address) is True


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "10.0.0.1.", "0", "::1"]
)
def test_host_of_the_inside_is_known_by_its_text(host):
    assert is_inside(host) is True


@pytest.mark.parametrize("host", ["8.8.8.8", "8.8.8.8.", "2600::1", "134744072", "a..b", "b" * 99])
def test_host_that_may_be_public_is_not_of_the_inside(host):
    assert is_inside(host) is False


def test_nobody_is_asked_whether_a_host_is_of_the_inside(monkeypatch):
    asked = []

    def look_up(host, port, family=0, type=0, proto=0, flags=0):
        asked.append((host, bool(flags & socket.AI_NUMERICHOST)))
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert is_inside("Private.test.") is False
    assert asked == [("private.test", True)]


def test_parsed_address_is_judged_like_its_text():
    assert is_public(ip_address("8.8.8.8"))
    assert not is_public(ip_address("::1"))


@settings(max_examples=500)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_public_address_is_global_for_the_standard_library_too(address):
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@settings(max_examples=300)
@given(st.ip_addresses(v=4))
def test_v4_address_embedded_in_v6_is_never_public(address: IPv4Address):
    low = int(address)
    for base in ("::", "::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "2600::5efe:0:0"):
        assert not is_public(IPv6Address(int(IPv6Address(base)) | low))
    assert not is_public(IPv6Address((0x2002 << 112) | (low << 80) | 1))
    assert not is_public(IPv6Address((0x2001_0000 << 96) | (low ^ 0xFFFF_FFFF)))
