"""What is remembered of files: their entries, stamps and hashes."""

import os

from serve_app.models.entry import AddOn
from serve_app.models.scan.memory import Memory
from serve_app.models.weights.files import digest


def test_scans_at_once_keep_what_the_other_saw(put, tmp_path):
    one, two = Memory(tmp_path), Memory(tmp_path)
    first, second = put("embedding-sd1-a1111", "a.safetensors"), put("vae-ldm", "b.safetensors")
    one.put(first, AddOn(id="a", type="embedding", source=first))
    two.put(second, AddOn(id="b", type="vae", source=second))
    one.save()
    two.save()
    assert Memory(tmp_path).get(first).entry_id == "a"
    assert Memory(tmp_path).get(second).entry_id == "b"


def test_what_is_to_be_hashed_comes_in_order_of_its_path(put, memory, folder):
    for name in ("c", "a", "b"):
        path = put("embedding-sd1-a1111", f"{name}.safetensors")
        memory.put(path, entry_of(path))
    assert [path.stem for path in memory.unhashed(folder)] == ["a", "b", "c"]
    for name in ("c", "b", "a"):
        (folder / f"{name}.safetensors").unlink()
    assert [path.stem for path, _ in memory.gone(folder)] == ["a", "b", "c"]


def entry_of(path):
    return AddOn(id="a", type="lora", source=path, models=("m",))


def test_file_is_remembered_at_once_and_hashed_later(put, memory, folder, tmp_path):
    path = put("lora-sd1-peft", "ink.safetensors")
    memory.put(path, entry_of(path))
    assert memory.unhashed(folder) == [path]
    assert not memory.has_changed(path, memory.get(path))
    memory.hash(path)
    memory.save()
    again = Memory(tmp_path / "cache")
    assert (again.unhashed(folder), again.get(path).digest) == ([], digest(path))
    os.utime(path, (1, 1))
    assert not again.has_changed(path, again.get(path))
    assert again.get(path).stamp != memory.get(path).stamp
    again.put(path, entry_of(path))
    assert again.unhashed(folder) == []


def test_file_that_changes_while_it_is_hashed_is_hashed_again(put, memory, folder, monkeypatch):
    path = put("lora-sd1-peft", "ink.safetensors")
    memory.put(path, entry_of(path))

    def changing(path):
        os.utime(path, (1, 1))
        return "hash of a part"

    monkeypatch.setattr("serve_app.models.scan.memory.digest", changing)
    memory.hash(path)
    assert memory.unhashed(folder) == [path]


def test_file_that_changed_before_it_was_hashed_has_changed(put, memory):
    path = put("lora-sd1-peft", "ink.safetensors")
    memory.put(path, entry_of(path))
    os.utime(path, (1, 1))
    assert memory.has_changed(path, memory.get(path))
    memory.put(path, entry_of(path))
    assert not memory.has_changed(path, memory.get(path))


def test_memory_that_cannot_be_read_is_begun_anew(tmp_path):
    (tmp_path / "scan.json").write_text("{")
    assert list(Memory(tmp_path).gone(tmp_path)) == []
