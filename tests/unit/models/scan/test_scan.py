"""A folder of downloads: what each file is, and the entries that are made of it."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from serve_app.config import CatalogueConfig
from serve_app.models.entry import ModelEntry, read_entry
from serve_app.models.scan.memory import Memory
from serve_app.models.scan.scan import Verdict, scan
from serve_app.models.scan.twins import find_twins
from serve_app.models.scan.values import ScanDefaults
from tests import community_files
from tests.unit.models.test_inspect_folder import pipeline


def test_models_and_what_fits_them_become_entries(put, rows):
    put("sd1", "Dream Shaper 8.safetensors")
    put("sdxl", "xl/Juggernaut.safetensors")
    put(
        "lora-sd1-kohya",
        "loras/Ink Style.safetensors",
        metadata={"modelspec.trigger_phrase": "ink"},
    )
    put("embedding-sd1-a1111", "bad-hands.safetensors")
    found = rows(defaults=ScanDefaults(placement="pool", dtype="float16"))
    assert {row.verdict for row in found.values()} == {Verdict.NEW}
    model = found["Dream Shaper 8.safetensors"].entry
    assert (model.id, model.category, model.native_size_px) == (
        "dream-shaper-8",
        "stable_diffusion",
        512,
    )
    assert (model.placement, model.dtype) == ("pool", "float16")
    xl = found["xl/Juggernaut.safetensors"].entry
    assert (xl.category, xl.native_size_px) == ("stable_diffusion_xl", 1024)
    lora = found["loras/Ink Style.safetensors"].entry
    assert (lora.type, lora.models) == ("lora", ("dream-shaper-8",))
    assert "ink" in lora.description
    embedding = found["bad-hands.safetensors"].entry
    assert (embedding.trigger, embedding.models) == ("bad-hands", ("dream-shaper-8",))


CONTROLS = {
    "control_v11p_sd15_canny": ("canny",),
    "control_v11p_sd15_normalbae": ("normal",),
    "control_v11p_sd15_seg_fp16": ("segmentation",),
    "controlnet-openpose": ("openpose",),
    "my-net": (),
    "canny-or-depth": (),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_controlnet_is_for_what_its_name_says(put, rows, name):
    put("sd1", "dream.safetensors")
    put("controlnet-sd1-diffusers", f"{name}.safetensors")
    entry = rows()[f"{name}.safetensors"].entry
    assert (entry.type, entry.control, entry.models) == ("controlnet", CONTROLS[name], ("dream",))


def test_controlnets_that_are_not_served_are_refused(put, rows):
    put("sdxl", "dream.safetensors")
    put("controlnet-xl-union", "union.safetensors")
    put("controlnet-flux", "flux.safetensors")
    found = rows()
    assert found["union.safetensors"].verdict is Verdict.REFUSED
    assert found["flux.safetensors"].verdict is Verdict.REFUSED


def test_folder_of_a_variant_alone_becomes_an_entry(folder, rows):
    pipeline(folder / "half", variant=".fp16")
    row = rows()["half"]
    assert (row.verdict, row.entry.id, row.entry.category) == ("new", "half", "stable_diffusion")


def test_add_ons_fit_models_of_their_family_that_are_served_already(put, rows, tmp_path):
    source = community_files.write_named(tmp_path, "sd1")
    served = ModelEntry(id="served", source=source, kinds=("text2img",))
    put("lora-sd1-peft", "one.safetensors")
    put("lora-xl-peft", "two.safetensors")
    found = rows(served)
    assert found["one.safetensors"].entry.models == ("served",)
    assert found["two.safetensors"].verdict is Verdict.REFUSED
    assert "no model of its family" in found["two.safetensors"].reason


def test_what_is_wrong_with_a_file_is_its_reason_and_the_rest_goes_on(put, rows, folder, tmp_path):
    put("sd1", "good.safetensors")
    put("sd1-unet", "part.safetensors")
    put("loha-sd1", "loha.safetensors")
    put("controlnet-flux", "control.safetensors")
    put("upscaler-esrgan", "upscaler.safetensors")
    put("upscaler-swinir", "swinir.safetensors")
    put("sd2", "sd2.safetensors")
    put("flux-all-in-one-fp8", "flux.safetensors")
    put("embedding-sd1-a1111", "Same Name.safetensors")
    put("lora-sd1-kohya", "same-name.safetensors")
    put("sd1-with-ema", "絵.safetensors")
    (folder / "text.safetensors").write_text("hello, this is not a file of weights")
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04")
    outside = community_files.write_named(tmp_path, "lora-sd1-peft")
    (folder / "out.safetensors").symlink_to(outside)
    (folder / "nothing.safetensors").symlink_to(folder / "nowhere")
    (folder / "circle.safetensors").symlink_to(folder / "circle.safetensors")
    put("ip-adapter-sd1", "ip.safetensors")
    put("vae-ldm", "vae.safetensors")
    put("sdxl-edm", "edm.safetensors")
    (folder / "notes.txt").write_text("ignored")
    found = rows()
    assert found["good.safetensors"].verdict is Verdict.NEW
    assert found["Same Name.safetensors"].entry.models == ("good",)
    assert found["loha.safetensors"].entry.type == "lora"
    reasons = {
        "part.safetensors": "is not served",
        "control.safetensors": "no model of its family",
        "swinir.safetensors": "found an upscaler (transformer)",
        "sd2.safetensors": "say prediction_type",
        "flux.safetensors": "T5",
        "same-name.safetensors": "its id same-name is taken by Same Name.safetensors",
        "絵.safetensors": "no id",
        "text.safetensors": "safetensors",
        "old.ckpt": "models convert",
        "out.safetensors": "leads out",
        "nothing.safetensors": "does not exist",
        "circle.safetensors": "loop",
        "ip.safetensors": "image encoder",
        "vae.safetensors": "whose latents",
        "edm.safetensors": "not served",
    }
    served = {
        "good.safetensors",
        "Same Name.safetensors",
        "loha.safetensors",
        "upscaler.safetensors",
    }
    assert found["upscaler.safetensors"].entry.type == "upscaler"
    assert found["upscaler.safetensors"].entry.models == ()
    assert found.keys() == served | reasons.keys()
    for name, reason in reasons.items():
        assert found[name].verdict is Verdict.REFUSED, name
        assert reason in found[name].reason, name
        assert found[name].entry is None


def test_two_files_of_one_content_are_one_entry(put, rows, folder):
    put("sd1", "model.safetensors")
    first = put("lora-sd1-peft", "a.safetensors")
    shutil.copyfile(first, folder / "b.safetensors")
    other = put("lora-sd1-peft", "c.safetensors")
    with other.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"abc")
    found = rows()
    assert found["b.safetensors"].reason == "has the contents of a.safetensors"
    assert found["c.safetensors"].verdict is Verdict.NEW


def test_folder_that_may_not_be_read_has_a_row(put, rows, folder, monkeypatch):
    put("sd1", "model.safetensors")
    closed = folder / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = rows()
    assert found["model.safetensors"].verdict is Verdict.NEW
    assert found["closed"].verdict is Verdict.REFUSED
    assert "cannot be read" in found["closed"].reason


def test_copy_of_a_served_file_is_refused_and_not_the_file(put, rows, folder):
    put("sd1", "model.safetensors")
    served = put("lora-sd1-peft", "served.safetensors")
    first = rows()["served.safetensors"].entry
    shutil.copyfile(served, folder / "a-copy.safetensors")
    found = rows(first)
    assert found["served.safetensors"].verdict is Verdict.SAME
    assert found["a-copy.safetensors"].reason == "has the contents of served.safetensors"


def test_spelling_of_the_folder_does_not_matter(put, rows, folder, memory, tmp_path, monkeypatch):
    put("sd1", "model.safetensors")
    entry = rows()["model.safetensors"].entry
    monkeypatch.chdir(folder)
    config = CatalogueConfig(cache_dir=tmp_path / "cache")
    (again,) = scan(Path("../downloads"), {entry.id: entry}, memory, config)
    assert again.verdict is Verdict.SAME


def test_files_of_one_size_are_not_read_whole_unless_samples_agree(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        "serve_app.models.scan.twins.digest", lambda path: read.append(path) or path
    )
    files = [folder / name for name in "abc"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 100_000)
    assert (find_twins(files), read) == ({}, [])


def test_second_scan_tells_what_is_new_changed_or_gone(put, rows, memory, folder):
    put("sd1", "model.safetensors")
    same = put("lora-sd1-peft", "same.safetensors")
    changed = put("lora-sd1-kohya", "changed.safetensors")
    gone = put("embedding-sd1-a1111", "gone.safetensors")
    first = rows()
    for path in (same, changed, gone):
        memory.put(path, first[path.name].entry)
        memory.hash(path)
    memory.save()
    os.utime(same, (1, 1))  # a new time, the same contents
    gone.unlink()
    put("lora-sd1-text-only", "changed.safetensors")
    known = [row.entry for row in first.values() if row.path != folder / "model.safetensors"]
    again = rows(*known)
    assert {name: row.verdict for name, row in again.items()} == {
        "model.safetensors": Verdict.NEW,
        "same.safetensors": Verdict.SAME,
        "changed.safetensors": Verdict.CHANGED,
        "gone.safetensors": Verdict.GONE,
    }


def test_add_on_is_offered_with_models_that_appear_later(put, rows, memory):
    put("sd1", "one.safetensors")
    path = put("lora-sd1-peft", "ink.safetensors")
    known = {row.entry.id: row.entry for row in rows().values()}
    for row in rows().values():
        memory.put(row.path, row.entry)
    put("sd1-inpainting", "two.safetensors")
    again = rows(*known.values())
    ink = again["ink.safetensors"]
    assert (ink.verdict, ink.reason) == (Verdict.WIDER, "fits one, two")
    assert ink.entry.models == ("one", "two")
    narrowed = known["ink"].model_copy(update={"models": ("other",)})  # by the operator
    assert rows(known["one"], narrowed)["ink.safetensors"].verdict is Verdict.SAME
    memory.put(path, ink.entry, is_file=True)
    assert rows(*known.values())["ink.safetensors"].verdict is Verdict.SAME


def test_file_that_became_something_else_is_refused(put, rows, memory):
    put("sd1", "one.safetensors")
    path = put("lora-sd1-peft", "ink.safetensors")
    known = [row.entry for row in rows().values()]
    memory.put(path, known[0] if known[0].id == "ink" else known[1])
    put("embedding-sd1-a1111", "ink.safetensors")
    row = rows(*known)["ink.safetensors"]
    assert (row.verdict, "found an embedding" in row.reason) == (Verdict.REFUSED, True)


def test_folder_of_a_component_is_one_row_with_an_id_of_its_own(folder, rows, put):
    put("sd1", "sd1.safetensors")
    for name in ("a", "b"):
        vae = folder / name / "vae"
        community_files.write(
            vae / "diffusion_pytorch_model.safetensors", community_files.diffusers_vae()
        )
        settings = {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215}
        (vae / "config.json").write_text(json.dumps(settings))
    found = rows()
    assert {name: (row.verdict, row.entry.id) for name, row in found.items()} == {
        "sd1.safetensors": ("new", "sd1"),
        "a/vae": ("new", "a-vae"),
        "b/vae": ("new", "b-vae"),
    }
    assert found["a/vae"].entry.source == folder / "a" / "vae"


def test_link_to_a_folder_has_a_row(folder, rows, put, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    found = rows()
    assert {row.verdict for row in found.values()} == {Verdict.REFUSED}
    assert "link to a folder" in found["linked"].reason
    assert "link to a folder" in found["circle"].reason


def test_hub_cache_is_scanned(folder, rows, tmp_path):
    repository = folder / "models--acme--tiny"
    snapshot = pipeline(repository / "snapshots" / ("0" * 40))
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.rglob("*.safetensors"))):
        blob = file.rename(repository / "blobs" / str(number))
        file.symlink_to(os.path.relpath(blob, file.parent))
    (row,) = rows().values()
    assert (row.verdict, row.entry.id, row.entry.name) == ("new", "tiny", "tiny")
    config = CatalogueConfig(cache_dir=tmp_path / "cache")
    (alone,) = scan(snapshot.parent, {}, Memory(tmp_path / "other"), config)
    assert (alone.verdict, alone.entry.id) == ("new", "tiny")


def test_entries_can_be_files_of_the_catalogue(put, rows):
    put("sd1", "model.safetensors")
    put("lora-sd1-peft", "lora.safetensors")
    for row in rows().values():
        values = row.entry.model_dump(mode="json", exclude_unset=True)
        assert read_entry(yaml.safe_load(yaml.safe_dump(values))) == row.entry
