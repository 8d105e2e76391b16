"""What may be loaded: whole, safe, and what the operator said it is."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import AddOn, ModelEntry
from serve_app.models.weights import copies
from serve_app.models.weights.resolve import digest, resolve
from serve_app.types import Kind


@pytest.fixture
def folder(tmp_path):
    """A model of two weight files and a settings file; no torch can load it."""
    root = tmp_path / "shared" / "model"
    for number, name in enumerate(("unet", "vae")):
        (root / name).mkdir(parents=True)
        save_file({"w": np.full(8, number, np.float32)}, root / name / "model.safetensors")
    (root / "model_index.json").write_text("{}")
    return root


@pytest.fixture
def config(tmp_path):
    return CatalogueConfig(cache_dir=tmp_path / "cache")


def entry(source, **changes):
    return ModelEntry(**{"id": "m", "source": source, "kinds": (Kind.TEXT2IMG,), **changes})


def refused(message):
    return pytest.raises(errors.WeightsRefused, match=message)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(folder):
    return {
        file.relative_to(folder).as_posix(): sha256(file) for file in folder.rglob("*.safetensors")
    }


def test_sound_folder_and_file_are_read_where_they_are(folder, config):
    assert resolve(entry(folder), config).path == folder
    file = folder / "vae" / "model.safetensors"
    assert resolve(AddOn(id="v", type="vae", source=file), config).path == file


def test_link_to_the_folder_itself_is_followed(folder, config, tmp_path):
    (tmp_path / "current").symlink_to(folder)
    assert resolve(entry(tmp_path / "current"), config).path == tmp_path / "current"


def test_missing_source_is_refused(tmp_path, config):
    with refused("does not exist"):
        resolve(entry(tmp_path / "nothing"), config)


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "a" * 5000], ids=["nul", "surrogate", "long"])
def test_source_that_no_system_can_look_up_is_no_entry(path):
    with pytest.raises(ValueError, match="must be a path of at most 4096 characters, without NUL"):
        entry(path)


def test_folder_without_weights_is_refused(tmp_path, config):
    (tmp_path / "model_index.json").write_text("{}")
    with refused("holds no weights"):
        resolve(entry(tmp_path), config)


@pytest.mark.parametrize("name", ["a.bin", "b.pt", "c.ckpt", "d.PTH", "e.pkl", "f.pickle"])
def test_pickles_are_refused_unless_allowed(folder, config, name):
    (folder / "unet" / name).write_bytes(b"\x80\x04.")
    with refused(f"unet/{name} is a pickle.*allow_pickle"):
        resolve(entry(folder), config)
    allowed = config.model_copy(update={"allow_pickle": True})
    assert resolve(entry(folder), allowed).path == folder


@pytest.mark.parametrize("field", ["base", "base_config"])
def test_single_pickle_is_refused_unless_allowed_with_settings_beside_it(
    tmp_path, folder, config, field
):
    (file := tmp_path / "old.ckpt").write_bytes(b"\x80\x04.")
    allowed = config.model_copy(update={"allow_pickle": True})
    with refused("old.ckpt is a pickle"):
        resolve(entry(file, **{field: folder}), config)
    with refused("old.ckpt is a pickle"):
        resolve(entry(file), allowed)
    assert resolve(entry(file, **{field: folder}), allowed).path == file


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[:4],
        lambda data: b"",
        lambda data: b"\x80\x04 a pickle with another name",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data + b"more",
    ],
    ids=["truncated", "no-header", "empty", "pickle", "endless-header", "longer"],
)
def test_broken_safetensors_are_refused(folder, config, change):
    file = folder / "unet" / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with refused("unet/model.safetensors is truncated or not a safetensors file"):
        resolve(entry(folder), config)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/etc/passwd", "leads out of its folder"),
        ("../../outside.safetensors", "leads out of its folder"),
        ("nothing", "link to nothing or in a circle"),
        ("link.safetensors", "link to nothing or in a circle"),
        ("../vae", "link to a folder"),
        (".", "link to a folder"),
        ("..", "link to a folder"),
    ],
)
def test_links_that_lead_elsewhere_are_refused(folder, config, target, message):
    (folder.parent / "outside.safetensors").touch()
    (folder / "unet" / "link.safetensors").symlink_to(target)
    with refused(message):
        resolve(entry(folder), config)


def test_link_within_the_folder_is_fine(folder, config):
    (folder / "unet" / "again.safetensors").symlink_to("../vae/model.safetensors")
    assert resolve(entry(folder), config).path == folder


def test_source_that_is_a_circle_of_links_is_refused(tmp_path, config):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with refused("does not exist"):
        resolve(entry(tmp_path / "a"), config)


def test_pipe_among_the_files_is_refused(folder, config):
    os.mkfifo(folder / "unet" / "pipe.safetensors")
    with refused("not a plain file"):
        resolve(entry(folder), config)


def test_manifest_that_fits_is_accepted(folder, config):
    resolve(entry(folder, sha256=manifest(folder)), config)
    file = folder / "vae" / "model.safetensors"
    resolve(AddOn(id="v", type="vae", source=file, sha256=sha256(file)), config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vae/model.safetensors": "0" * 64}, "vae/model.safetensors has the sha256"),
        ({"unet/other.safetensors": "0" * 64}, "unet/other.safetensors .* does not exist"),
        ({"vae/model.safetensors": None}, "vae/model.safetensors is not in the manifest"),
    ],
    ids=["wrong", "missing", "unknown"],
)
def test_manifest_that_differs_is_refused(folder, config, change, message):
    wanted = {name: text for name, text in (manifest(folder) | change).items() if text}
    with refused(message):
        resolve(entry(folder, sha256=wanted), config)


def test_one_hash_for_a_folder_is_refused(folder, config):
    with refused("one for each file"):
        resolve(entry(folder, sha256="0" * 64), config)


def test_file_that_changes_is_hashed_anew(folder, config):
    wanted = manifest(folder)
    resolve(entry(folder, sha256=wanted), config)
    save_file({"w": np.full(8, 7, np.float32)}, folder / "vae" / "model.safetensors")
    with refused("has the sha256"):
        resolve(entry(folder, sha256=wanted), config)


def test_digest_sees_a_file_rewritten_in_place_with_the_same_size(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"first")
    first, stat = digest(file), file.stat()
    with file.open("r+b") as opened:
        opened.write(b"other")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file.stat().st_ino == stat.st_ino
    assert digest(file) == sha256(file) != first


def test_digest_tells_contents_and_names_apart(folder):
    first = digest(folder)
    assert digest(folder) == first
    (folder / "unet").rename(folder / "unet2")
    renamed = digest(folder)
    (folder / "model_index.json").write_text("{ }")
    assert len({first, renamed, digest(folder)}) == 3
    file = folder / "vae" / "model.safetensors"
    assert digest(file) == sha256(file)


@pytest.mark.parametrize("base", ["nowhere", "vae"])
def test_base_config_that_is_no_diffusers_folder_is_refused(folder, config, base):
    file = folder / "vae" / "model.safetensors"
    with refused("base_config: .* is not a diffusers folder"):
        resolve(entry(file, base_config=folder / base), config)


@pytest.mark.parametrize(
    ("field", "path"), [("vae", "vae.safetensors"), ("text_encoders", "vae"), ("base", "vae")]
)
def test_parts_that_are_no_folders_of_diffusers_are_refused(folder, config, field, path):
    file = folder / "vae" / "model.safetensors"
    with refused(f"{field}: .* is not a diffusers folder"):
        resolve(entry(file, **{field: folder / path}), config)


def test_base_is_for_single_files(folder, config):
    base = shutil.copytree(folder, folder.parent / "base")
    with refused("base is for single files"):
        resolve(entry(folder, base=base), config)


def test_variant_is_for_folders(folder, config):
    file = next(folder.rglob("*.safetensors"))
    with refused("variant is for folders"):
        resolve(entry(file, variant="fp16"), config)


def test_base_config_that_names_itself_is_no_entry(folder):
    with pytest.raises(ValueError, match="the source itself"):
        entry(folder, base_config=folder)


@pytest.fixture
def copying(config):
    return config.model_copy(update={"copy_weights": True})


def test_copy_holds_the_same_files_and_is_made_once(folder, copying):
    copy = resolve(entry(folder), copying).path
    assert copy.is_relative_to(copying.cache_dir)
    assert digest(copy) == digest(folder)
    inode = (copy / "model_index.json").stat().st_ino
    assert resolve(entry(folder), copying).path == copy
    assert (copy / "model_index.json").stat().st_ino == inode


def test_copy_of_a_single_file_keeps_its_name(folder, copying):
    file = folder / "vae" / "model.safetensors"
    copy = resolve(AddOn(id="v", type="vae", source=file), copying).path
    assert copy.name == file.name
    assert copy.read_bytes() == file.read_bytes()


def test_changed_source_makes_another_copy(folder, copying):
    before = resolve(entry(folder), copying).path
    save_file({"w": np.full(8, 7, np.float32)}, folder / "vae" / "model.safetensors")
    after = resolve(entry(folder), copying).path
    assert before != after
    assert digest(before) != digest(after) == digest(folder)


def test_sources_that_differ_in_content_only_have_copies_of_their_own(folder, copying, tmp_path):
    twin = tmp_path / "twin" / folder.name
    shutil.copytree(folder, twin)
    save_file({"w": np.full(8, 7, np.float32)}, twin / "vae" / "model.safetensors")
    for file in (*folder.rglob("*.*"), *twin.rglob("*.*")):
        os.utime(file, (0, 0))  # as in the layers of a container image
    copies_of_both = [resolve(entry(source), copying).path for source in (folder, twin)]
    assert [digest(copy) for copy in copies_of_both] == [digest(folder), digest(twin)]


def test_bad_source_leaves_no_copy(folder, copying):
    with refused("has the sha256"):
        resolve(entry(folder, sha256=manifest(folder) | {"model_index.json": "0" * 64}), copying)
    assert [path.suffix for path in (copying.cache_dir / "copies").iterdir()] == [".lock"]


def test_copy_that_a_dead_process_began_is_made_anew(folder, copying):
    copy = resolve(entry(folder), copying).path.parent
    copy.rename(copy.with_suffix(".new"))
    (copy.with_suffix(".new") / "model" / "model_index.json").write_text("half")
    assert digest(resolve(entry(folder), copying).path) == digest(folder)


def test_copies_at_once_are_made_once(folder, copying, monkeypatch):
    made = []
    copy = copies._copy
    monkeypatch.setattr(copies, "_copy", lambda *args: made.append(args) or copy(*args))
    threads = [threading.Thread(target=resolve, args=(entry(folder), copying)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


COPY = """
import sys
from pathlib import Path
from serve_app.config import CatalogueConfig
from serve_app.models import ModelEntry
from serve_app.models.weights.resolve import resolve
entry = ModelEntry(id="m", source=sys.argv[1], kinds=("text2img",))
print(resolve(entry, CatalogueConfig(cache_dir=sys.argv[2], copy_weights=True)).path)
"""


def test_two_processes_at_once_share_a_copy(folder, copying):
    save_file({"w": np.ones(8_000_000, np.float32)}, folder / "unet" / "model.safetensors")
    command = [sys.executable, "-c", COPY, str(folder), str(copying.cache_dir)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    found = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert found == {f"{resolve(entry(folder), copying).path}\n".encode()}
