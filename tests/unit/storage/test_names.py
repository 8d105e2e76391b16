"""Names of files."""

import re
from uuid import UUID

import pytest

from serve_app.storage import names

HEX = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        ({}, rf"generations/(\d)-({HEX})\.png"),
        ({"temp": True}, rf"temp/(\d)-({HEX})\.png"),
        ({"base64": True}, rf"generations/(\d)-({HEX})\.base64"),
        ({"base64": True, "temp": True}, rf"temp/(\d)-({HEX})\.base64"),
    ],
)
def test_reserve_draws_keys_in_the_style_of_the_api(flags, pattern):
    keys = names.reserve(4, **flags)
    found = [re.fullmatch(pattern, key) for key in keys]
    assert [match[1] for match in found] == ["0", "1", "2", "3"]
    assert len({match[2] for match in found}) == 1
    assert all(names.is_result(key) for key in keys)


def test_reserve_twice_shares_no_random_bits():
    drawn = {UUID(names.reserve(1)[0][-40:-4]).int for _ in range(200)}
    assert len(drawn) == 200
    ones = [sum(value >> bit & 1 for value in drawn) for bit in range(128)]
    assert sum(0 < count < 200 for count in ones) == 122


def test_reserve_input_is_a_key_but_no_result():
    key = names.reserve_input()
    assert names.is_key(key)
    assert key.startswith("inputs/")
    assert not names.is_result(key)


@pytest.mark.parametrize("key", ["generations/../x", "inputs/a.png", "temp", "temp/", "Temp/a"])
def test_is_result_of_anything_else_is_false(key):
    assert not names.is_result(key)


def test_media_type_is_known_by_the_name():
    assert names.media_type("temp/0-a.png") == "image/png"
    assert names.media_type("temp/0-a.base64") == "text/plain"
    assert names.media_type("inputs/a") == "application/octet-stream"


@pytest.mark.parametrize("prefix", ["acme", "a/b/c", "customers/acme-1.x_y", "a" * 64])
def test_prefix_moves_a_result_inside_its_folder(prefix):
    for temp in (False, True):
        (key,) = names.reserve(1, temp=temp)
        moved = names.prefixed(key, prefix)
        assert names.is_prefix(prefix)
        assert names.is_result(moved)
        folder, name = key.split("/")
        assert moved == f"{folder}/{prefix}/{name}"
        assert names.check(moved) == (f"{folder}/{prefix}", name)


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "/", "..", "a/..", "../a", "a..b", ".a", "a//b", "/a", "a/"),
        *("a b", "ä", "a\\b", "a\n", "a/b/c/d", "a" * 65, "a\0"),
    ],
    ids=ascii,
)
def test_what_leads_elsewhere_is_no_prefix(prefix):
    assert not names.is_prefix(prefix)
