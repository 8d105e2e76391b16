"""What holds for every `ObjectStore`: in memory, on disk and on S3."""

import asyncio

import pytest

from serve_app.storage import names

KEY = "generations/0-a.png"
BAD_KEYS = [
    "",
    "a.png",
    "/generations/a.png",
    "generations/../a.png",
    "../a/b.png",
    "a/..",
    "a/.hidden",
    "a/b/c/d/e/f.png",
    "a//b.png",
    "a/../b/c.png",
    "a/.b/c.png",
    "a/b.png\n",
    "a\\b/c",
    "a/b\0.png",
    "a/%2e%2e",
    "a/é.png",
    "a/" + "b" * 300,
    "a/\ud800",
]


@pytest.fixture
def store(object_bench):
    return object_bench.store


@pytest.mark.slow
async def test_get_after_put_reads_the_same_bytes(store):
    data = bytes(range(256)) * 50
    await store.put(KEY, data, "image/png")
    assert await store.get(KEY) == data


async def test_get_of_a_missing_file_finds_nothing(store):
    assert await store.get(KEY) is None
    await store.put(KEY, b"x", "image/png")
    assert await store.get("generations/0-b.png") is None
    assert await store.get("temp/0-a.png") is None


async def test_put_of_an_empty_file_keeps_it(store):
    await store.put(KEY, b"", "image/png")
    assert await store.get(KEY) == b""


async def test_put_over_a_file_replaces_it(store):
    await store.put(KEY, b"long old content", "image/png")
    await store.put(KEY, b"new", "image/png")
    assert await store.get(KEY) == b"new"


async def test_put_of_one_key_by_many_leaves_one_whole_file(store):
    versions = [bytes([number]) * 50_000 for number in range(8)]
    await asyncio.gather(*(store.put(KEY, data, "image/png") for data in versions))
    assert await store.get(KEY) in versions


async def test_delete_removes_the_file_and_forgives_a_missing_one(store):
    await store.put(KEY, b"x", "image/png")
    await store.delete(KEY)
    await store.delete(KEY)
    assert await store.get(KEY) is None


async def test_expire_removes_old_files_of_the_folder_only(object_bench):
    store = object_bench.store
    await store.put("temp/old.png", b"x", "image/png")
    await store.put("generations/old.png", b"x", "image/png")
    await store.put("tempting/old.png", b"x", "image/png")
    await object_bench.advance(100)
    await store.put("temp/young.png", b"x", "image/png")
    assert await store.expire("temp", 50) == 1
    assert await store.get("temp/old.png") is None
    assert await store.get("temp/young.png") == b"x"
    assert await store.get("generations/old.png") == b"x"
    assert await store.get("tempting/old.png") == b"x"


async def test_files_under_a_prefix_are_kept_apart_and_expire_with_their_folder(object_bench):
    store = object_bench.store
    keys = [names.prefixed("temp/0-a.png", prefix) for prefix in ("acme", "b/c/d")]
    for number, key in enumerate(["temp/0-a.png", *keys]):
        await store.put(key, bytes([number]), "image/png")
    assert [await store.get(key) for key in keys] == [b"\1", b"\2"]
    assert keys[1] in await store.url(keys[1], "http://host")
    await store.delete(keys[0])
    assert await store.get(keys[0]) is None
    assert await store.get("temp/0-a.png") == b"\0"
    await object_bench.advance(100)
    assert await store.expire("temp", 50) == 2
    assert await store.get(keys[1]) is None


async def test_expire_of_an_empty_folder_removes_nothing(store):
    assert await store.expire("temp", 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
async def test_a_text_that_is_no_key_reaches_no_file(store, key):
    assert await store.get(key) is None
    for call in (store.put(key, b"x", "image/png"), store.delete(key), store.url(key, "http://h")):
        with pytest.raises(ValueError, match="no key"):
            await call


async def test_url_names_the_file(store):
    key = names.reserve(1)[0]
    assert names.check(key)[1] in await store.url(key, "http://host/prefix/")


async def test_ensure_lifecycle_twice_leaves_files_alone(store):
    await store.put(KEY, b"x", "image/png")
    await store.ensure_lifecycle()
    await store.ensure_lifecycle()
    assert await store.get(KEY) == b"x"
