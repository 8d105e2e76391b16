"""What holds for every `KeyStore`: in memory, on SQLite and on PostgreSQL."""

import re

import pytest

from serve_app import errors


async def test_create_shows_a_secret_that_verify_knows(bench):
    key, secret = await bench.keys.create("laptop")
    assert re.fullmatch(r"sd_live_[A-Za-z0-9_-]{43}", secret)
    assert key.name == "laptop"
    assert secret.startswith(key.prefix)
    assert len(key.prefix) <= len("sd_live_") + 4
    assert await bench.keys.verify(secret) == key.id


async def test_create_twice_makes_two_keys(bench):
    (first, secret), (second, other) = [await bench.keys.create("same") for _ in range(2)]
    assert first.id != second.id
    assert secret != other
    assert await bench.keys.verify(secret) == first.id
    assert await bench.keys.verify(other) == second.id


@pytest.mark.parametrize("name", ["a\0b", "\udfff"], ids=ascii)
async def test_create_with_a_name_that_is_no_text_is_refused(bench, name):
    with pytest.raises(errors.InvalidRequest):
        await bench.keys.create(name)


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: "",
        lambda secret: secret[:-1],
        lambda secret: secret + "\n",
        lambda secret: secret.swapcase(),
        lambda secret: secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        lambda secret: secret + "\0",
        lambda secret: "\ud800" + secret,
        lambda secret: "sd_live_" + "é" * 43,
        lambda secret: secret * 10_000,
    ],
)
async def test_verify_of_anything_else_finds_nobody(bench, change):
    _, secret = await bench.keys.create("laptop")
    assert await bench.keys.verify(change(secret)) is None


async def test_verify_by_id_prefix_or_hash_finds_nobody(bench):
    key, _ = await bench.keys.create("laptop")
    for guess in (key.id, key.prefix, "%", "sd_live_" + "%" * 43):
        assert await bench.keys.verify(guess) is None


async def test_revoke_ends_the_key_and_no_other(bench):
    (key, secret), (_, other) = [await bench.keys.create("same") for _ in range(2)]
    assert await bench.keys.revoke(key.id)
    assert await bench.keys.verify(secret) is None
    assert await bench.keys.verify(other) is not None
    assert not await bench.keys.revoke(key.id)
    assert not await bench.keys.revoke("key_unknown")


async def test_key_lives_until_it_is_revoked(bench):
    key, _ = await bench.keys.create("one")
    assert await bench.keys.is_live(key.id)
    await bench.keys.revoke(key.id)
    assert not await bench.keys.is_live(key.id)
    assert not await bench.keys.is_live("key_unknown")


async def test_list_shows_every_key_oldest_first_without_secrets(bench):
    first, secret = await bench.keys.create("one")
    await bench.advance(10)
    second, _ = await bench.keys.create("two")
    await bench.keys.revoke(second.id)
    listed = await bench.keys.list_keys()
    assert [key.name for key in listed] == ["one", "two"]
    assert [key.id for key in listed] == [first.id, second.id]
    assert [key.revoked_at is None for key in listed] == [True, False]
    assert secret not in repr(listed)
