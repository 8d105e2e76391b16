"""What holds for every `KeyStore`: in memory, on SQLite and on PostgreSQL."""

import math
import re

import pytest

from serve_app import errors
from serve_app.jobs.rules import Feature, KeyRules


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


@pytest.mark.slow
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


async def test_key_that_has_expired_lives_no_more(bench):
    key, _ = await bench.keys.create("one", lifetime_s=60)
    assert await bench.keys.is_live(key.id)
    await bench.advance(61)
    assert not await bench.keys.is_live(key.id)


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


async def test_key_expires(bench):
    key, secret = await bench.keys.create("short", lifetime_s=100)
    await bench.advance(99)
    assert await bench.keys.verify(secret) == key.id
    await bench.advance(2)
    assert await bench.keys.verify(secret) is None
    await bench.keys.change(key.id, key.rules, lifetime_s=50)
    assert await bench.keys.verify(secret) == key.id
    await bench.advance(60)
    assert await bench.keys.verify(secret) is None
    assert (await bench.keys.change(key.id, key.rules, math.inf)).expires_at is None
    assert await bench.keys.verify(secret) == key.id


async def test_rotated_key_has_two_secrets_for_a_while(bench):
    key, first = await bench.keys.create("laptop")
    second = await bench.keys.rotate(key.id, 100)
    assert [await bench.keys.verify(secret) for secret in (first, second)] == [key.id] * 2
    shown = await bench.keys.find(key.id)
    assert second.startswith(shown.prefix)
    await bench.advance(101)
    assert [await bench.keys.verify(secret) for secret in (first, second)] == [None, key.id]


async def test_second_rotation_ends_the_first_secret_at_once(bench):
    key, first = await bench.keys.create("laptop")
    second = await bench.keys.rotate(key.id, 100)
    third = await bench.keys.rotate(key.id, 100)
    known = [await bench.keys.verify(secret) for secret in (first, second, third)]
    assert known == [None, key.id, key.id]
    await bench.keys.revoke(key.id)
    assert [await bench.keys.verify(secret) for secret in (first, second, third)] == [None] * 3


async def test_rotation_without_overlap_ends_the_secret_at_once(bench):
    key, first = await bench.keys.create("leaked")
    second = await bench.keys.rotate(key.id, 0)
    assert [await bench.keys.verify(secret) for secret in (first, second)] == [None, key.id]


async def test_rules_are_kept_and_changed(bench):
    rules = KeyRules(max_open=3, models=("a", "b"), features=(Feature.INPAINT,))
    key, _ = await bench.keys.create("bound", rules)
    assert (await bench.keys.find(key.id)).rules == rules
    changed = await bench.keys.change(key.id, KeyRules(monthly_pictures=0))
    assert changed == await bench.keys.find(key.id)
    assert changed.rules == KeyRules(monthly_pictures=0)
    (listed,) = await bench.keys.list_keys()
    assert listed == changed


async def test_key_that_is_gone_is_not_changed(bench):
    key, _ = await bench.keys.create("gone")
    await bench.keys.revoke(key.id)
    for key_id in (key.id, "key_unknown"):
        assert await bench.keys.change(key_id, KeyRules()) is None
        assert await bench.keys.rotate(key_id, 10) is None
    assert await bench.keys.find("key_unknown") is None


async def test_keys_come_in_pages_oldest_first(bench):
    made = [(await bench.keys.create(f"key {number}"))[0] for number in range(5)]
    made.sort(key=lambda key: (key.created_at, key.id))  # some may be of the same millisecond
    assert [key.id for key in await bench.keys.list_keys()] == [key.id for key in made]
    first = await bench.keys.list_keys(2)
    second = await bench.keys.list_keys(2, first[-1].id)
    third = await bench.keys.list_keys(2, second[-1].id)
    assert first + second + third == await bench.keys.list_keys()
    assert await bench.keys.list_keys(2, third[-1].id) == []
    assert await bench.keys.list_keys(2, "key_nothing") == []
