"""Files of which nothing can be said: each with its reason, none opened for longer than needed."""

import os
from pathlib import Path

import pytest

from serve_app.config import CatalogueConfig
from serve_app.models.inspect import Fault, FileType, Unreadable, inspect
from tests import community_files
from tests.unit.models.test_verify import write_many

LENGTH = 8


def text(file):
    file.write_text("a text that somebody renamed")


def empty(file):
    file.touch()


def truncated(file):
    community_files.write(file, {"a": (1000,)})
    os.truncate(file, file.stat().st_size - 1)


def truncated_in_its_header(file):
    community_files.write(file, {"a": (1000,)})
    os.truncate(file, 20)


def huge_header(file):
    with file.open("wb") as opened:
        opened.write((100_000_000).to_bytes(LENGTH, "little"))
        opened.truncate(LENGTH + 100_000_000)


def header_beyond_the_format(file):
    with file.open("wb") as opened:
        opened.write((1 << 40).to_bytes(LENGTH, "little"))
        opened.truncate(1 << 20)


def no_json(file):
    file.write_bytes((4).to_bytes(LENGTH, "little") + b"nope")


def deep_json(file):
    file.write_bytes((9000).to_bytes(LENGTH, "little") + b"[" * 9000)


def other_json(file):
    file.write_bytes((9).to_bytes(LENGTH, "little") + b'{"a": [1}')


def zip_of_torch(file):
    file.write_bytes(b"PK\x03\x04" + bytes(range(200)))


def bare_pickle(file):
    file.write_bytes(b"\x80\x02}q\x00." + bytes(range(200)))


def gguf(file):
    file.write_bytes(b"GGUF" + bytes(range(200)))


def web_page(file):
    file.write_text("<!DOCTYPE html><title>Log in</title>")


def pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def pipe(file):
    os.mkfifo(file)


CASES = [
    (text, Fault.FOREIGN, "not a safetensors file"),
    (empty, Fault.FOREIGN, "not a safetensors file"),
    (truncated, Fault.TRUNCATED, "its header says"),
    (truncated_in_its_header, Fault.TRUNCATED, "within its header"),
    (huge_header, Fault.HEADER_TOO_LARGE, "catalogue.max_header_bytes is"),
    (header_beyond_the_format, Fault.FOREIGN, "not a safetensors file"),
    (no_json, Fault.FOREIGN, "header cannot be read"),
    (deep_json, Fault.FOREIGN, "header cannot be read"),
    (other_json, Fault.FOREIGN, "header cannot be read"),
    (zip_of_torch, Fault.PICKLE, "dreamserve models convert"),
    (bare_pickle, Fault.PICKLE, "dreamserve models convert"),
    (gguf, Fault.FOREIGN, "GGUF"),
    (web_page, Fault.FOREIGN, "web page"),
    (pointer, Fault.FOREIGN, "not downloaded"),
    (pipe, Fault.NO_FILE, "not a plain file"),
]


@pytest.mark.parametrize(
    ("write", "fault", "reason"), CASES, ids=lambda case: getattr(case, "__name__", None)
)
def test_bad_file_is_told_with_its_reason(tmp_path, write, fault, reason):
    file = tmp_path / "x.safetensors"
    write(file)
    with pytest.raises(Unreadable, match=reason) as caught:
        inspect(file)
    assert caught.value.fault is fault
    assert str(tmp_path) not in str(caught.value)


def test_file_of_more_tensors_than_the_setting_says_is_told(tmp_path):
    file = tmp_path / "x.safetensors"
    write_many(file, 11)
    with pytest.raises(Unreadable, match=r"11 tensors; catalogue\.max_tensors is 10") as caught:
        inspect(file, CatalogueConfig(max_tensors=10))
    assert caught.value.fault is Fault.TOO_MANY_TENSORS


@pytest.mark.slow
def test_file_of_very_many_tensors_is_told(tmp_path):
    file = tmp_path / "x.safetensors"
    write_many(file, 300_000)
    with pytest.raises(Unreadable) as caught:
        inspect(file)
    assert caught.value.fault is Fault.HEADER_TOO_LARGE
    with pytest.raises(
        Unreadable, match=r"300000 tensors; catalogue\.max_tensors is 20000"
    ) as caught:
        inspect(file, CatalogueConfig(max_header_bytes=100_000_000))
    assert caught.value.fault is Fault.TOO_MANY_TENSORS


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".CKPT"])
def test_pickle_is_named_and_never_opened(tmp_path, monkeypatch, suffix):
    file = tmp_path / f"x{suffix}"
    file.write_bytes(b"\x80\x04.")
    opened = []
    monkeypatch.setattr(Path, "open", lambda self, *how: opened.append(self))
    with pytest.raises(Unreadable, match=r"pickle.*dreamserve models convert") as caught:
        inspect(file)
    assert caught.value.fault is Fault.PICKLE
    assert opened == []


def test_missing_file_is_told(tmp_path):
    with pytest.raises(Unreadable, match="does not exist") as caught:
        inspect(tmp_path / "x.safetensors")
    assert caught.value.fault is Fault.MISSING


def test_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    file = community_files.write(tmp_path / "x.safetensors", {"a": (3,)})

    def refuse(self, *how):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may read whatever its mode says
    with pytest.raises(Unreadable, match="may not be read") as caught:
        inspect(file)
    assert caught.value.fault is Fault.NO_PERMISSION


def test_file_is_opened_once(tmp_path, monkeypatch):
    file = community_files.write_named(tmp_path, "lora-sd1-kohya")
    opened, open_ = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *how: opened.append(self) or open_(self, *how))
    assert inspect(file).rank == 16
    assert opened == [file]


@pytest.mark.timeout(60)
def test_endless_names_hold_nobody_up(tmp_path):
    """A search takes the square of a name's length, so one of a megabyte would take days."""
    hostile = {f"{'attn2_to_k' * 100_000}.lora_x.weight": ()}
    hostile |= {f"{number}{'attn2_to_k' * 22}.lora_x.weight": () for number in range(2000)}
    layer = {"lora_unet_a.lora_down.weight": (4, 8)}
    found = inspect(community_files.write(tmp_path / "x.safetensors", hostile | layer))
    assert found.type is FileType.LORA
    assert len(found.describe()) < 1000


def test_torch_is_not_needed():
    import subprocess
    import sys

    code = (
        "import sys, serve_app.models.inspect.match;"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
