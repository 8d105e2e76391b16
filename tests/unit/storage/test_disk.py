"""What is special about files on disk."""

import errno
import os

import pytest

from serve_app import errors
from serve_app.storage.disk import DiskStore

KEY = "generations/a.png"


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_put_leaves_no_part_file(tmp_path):
    await DiskStore(tmp_path).put(KEY, b"x", "image/png")
    assert files_in(tmp_path) == ["a.png"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
async def test_put_on_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    store = DiskStore(tmp_path)
    await store.put(KEY, b"old", "image/png")

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(errors.StorageUnavailable) as caught:
        await store.put(KEY, b"new", "image/png")
    monkeypatch.undo()
    assert str(tmp_path) not in str(caught.value)
    assert files_in(tmp_path) == ["a.png"]
    assert await store.get(KEY) == b"old"


async def test_put_where_a_file_is_in_the_way_is_unavailable(tmp_path):
    (tmp_path / "generations").write_bytes(b"")
    with pytest.raises(errors.StorageUnavailable):
        await DiskStore(tmp_path).put(KEY, b"x", "image/png")


async def test_linked_folder_is_not_followed(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "a.png").write_bytes(b"secret")
    (inside / "generations").symlink_to(outside)
    store = DiskStore(inside)
    for call in (store.get(KEY), store.put(KEY, b"x", "image/png"), store.delete(KEY)):
        with pytest.raises(errors.StorageUnavailable):
            await call
    assert (outside / "a.png").read_bytes() == b"secret"


async def test_linked_file_is_not_followed(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"secret")
    (tmp_path / "files" / "generations").mkdir(parents=True)
    link = tmp_path / "files" / KEY
    link.symlink_to(outside)
    store = DiskStore(tmp_path / "files")
    with pytest.raises(errors.StorageUnavailable):
        await store.get(KEY)
    await store.put(KEY, b"new", "image/png")
    assert (outside.read_bytes(), link.is_symlink()) == (b"secret", False)


async def test_expire_removes_old_part_files_but_no_young_ones(tmp_path):
    store = DiskStore(tmp_path)
    await store.put("temp/a.png", b"x", "image/png")
    young, old = tmp_path / "temp" / ".part-young", tmp_path / "temp" / ".part-old"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    (tmp_path / "temp" / "folder").mkdir()
    assert await store.expire("temp", -1) == 1
    assert files_in(tmp_path) == [".part-young"]


async def test_url_is_a_file_path_under_the_base(tmp_path):
    store = DiskStore(tmp_path)
    assert await store.url(KEY, "https://host/x/", 60) == "https://host/x/files/generations/a.png"
