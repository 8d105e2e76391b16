"""How much memory a model will take."""

import json

import pytest

from serve_app.models import ModelEntry
from serve_app.models.weights.footprint import weight_bytes
from serve_app.types import Kind
from tests import community_files


def write(file, **tensors):
    """A safetensors file of tensors named by dtype, with so many numbers each, all holes."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for dtype, count in tensors.items():
        begin, end = end, end + count * {"F32": 4, "F16": 2, "I64": 8}[dtype]
        header[dtype] = {"dtype": dtype, "shape": [count], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(text).to_bytes(8, "little") + text)


def entry(source, dtype="float32", **parts):
    return ModelEntry(id="m", source=source, kinds=tuple(Kind), dtype=dtype, **parts)


@pytest.mark.parametrize(("dtype", "wanted"), [("float32", 48), ("bfloat16", 32)])
def test_floats_count_in_the_dtype_that_they_are_loaded_in(tmp_path, dtype, wanted):
    write(tmp_path / "unet" / "model.safetensors", F32=3, F16=5, I64=2)
    assert weight_bytes(entry(tmp_path, dtype)) == wanted


def test_variants_and_parts_that_are_not_loaded_do_not_count(tmp_path):
    write(tmp_path / "unet" / "model.safetensors", F32=1)
    write(tmp_path / "unet" / "model.fp16.safetensors", F16=1)
    write(tmp_path / "safety_checker" / "model.safetensors", F32=100)
    assert weight_bytes(entry(tmp_path)) == 4


@pytest.mark.parametrize("part", ["safety_checker", "feature_extractor", "image_encoder"])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_parts_that_no_painter_needs_do_not_count(tmp_path, part, is_indexed):
    write(tmp_path / "unet" / "model.safetensors", F32=1)
    write(tmp_path / part / "model.fp16.safetensors", F16=100)
    if is_indexed:
        index(tmp_path, "unet", part)
    assert weight_bytes(entry(tmp_path)) == 4


def index(folder, *names):
    said = {name: ["diffusers", "Some"] for name in names} | {"tokenizer": ["transformers", "T"]}
    (folder / "model_index.json").write_text(json.dumps(said))


def test_files_of_the_variant_that_is_loaded_count(tmp_path):
    write(tmp_path / "unet" / "model.safetensors", F32=1)
    write(tmp_path / "unet" / "model.fp16.safetensors", F16=2)
    write(tmp_path / "vae" / "model.fp16-00001-of-00002.safetensors", F16=4)
    write(tmp_path / "vae" / "model.fp16-00002-of-00002.safetensors", F16=8)
    index(tmp_path, "unet", "vae")
    assert weight_bytes(entry(tmp_path)) == 4 * (2 + 4 + 8)
    write(tmp_path / "vae" / "model-00001-of-00001.safetensors", F32=16)
    assert weight_bytes(entry(tmp_path)) == 4 * (1 + 16)
    assert weight_bytes(entry(tmp_path, variant="fp16")) == 4 * (2 + 4 + 8)


def test_files_beside_the_components_of_a_pipeline_do_not_count(tmp_path):
    write(tmp_path / "unet" / "model.safetensors", F32=1)
    write(tmp_path / "old" / "model.safetensors", F32=10)
    write(tmp_path / "v1-5-pruned.safetensors", F32=100)  # as repositories have it
    index(tmp_path, "unet", "../unet")
    assert weight_bytes(entry(tmp_path)) == 4


def test_single_file_counts(tmp_path):
    write(tmp_path / "model.fp16.safetensors", F16=2)
    assert weight_bytes(entry(tmp_path / "model.fp16.safetensors")) == 8


def test_parts_that_an_entry_names_count(tmp_path):
    file, base = tmp_path / "unet.safetensors", tmp_path / "base"
    write(file, F32=1)
    for part, number in (("unet", 1000), ("vae", 10), ("text_encoder_2", 100)):
        write(base / part / "model.safetensors", F32=number)
    assert weight_bytes(entry(file, base=base)) == 4 * 111
    assert weight_bytes(entry(file, base_config=base)) == 4
    assert weight_bytes(entry(file, vae=base / "vae", text_encoders=base)) == 4 * 111


def test_ema_copies_do_not_count(tmp_path):
    community_files.write(tmp_path / "m.safetensors", {"a": (2,), "model_ema.a": (2,)}, "F32")
    assert weight_bytes(entry(tmp_path / "m.safetensors")) == 8


PACKED = {
    "model.diffusion_model.a": (1,),
    "first_stage_model.a": (2,),
    "text_encoders.clip_l.transformer.a": (4,),
    "text_encoders.t5xxl.transformer.a": (8,),
}


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ((), 7),
        (("vae",), 5 + 16),
        (("text_encoders",), 3 + 32),
        (("base_config",), 15),
        (("vae", "base_config"), 13 + 16),
    ],
    ids=["alone", "vae", "texts", "settings-with-t5", "vae-and-settings"],
)
def test_what_a_file_holds_and_nothing_reads_does_not_count(tmp_path, named, wanted):
    file = community_files.write(tmp_path / "m.safetensors", PACKED, "F32")
    folders = {name: tmp_path / name for name in named}
    index = {"_class_name": "X", "requires": True, "text_encoder": ["a", "b"]}
    index["text_encoder_3"] = ["a", "T5EncoderModel"]
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "model_index.json").write_text(json.dumps(index))
        write(folder / "text_encoder" / "model.safetensors", F32=32)
        if name == "vae":
            write(folder / "model.safetensors", F32=16)
    folders = {
        name: folder if name != "vae" else folder / "model.safetensors"
        for name, folder in folders.items()
    }
    assert weight_bytes(entry(file, **folders)) == 4 * wanted


def test_files_that_are_not_here_count_nothing(tmp_path):
    assert weight_bytes(entry(tmp_path / "nothing")) == 0


def test_file_of_another_format_is_told(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"PK" * 10)
    with pytest.raises(ValueError, match="not a safetensors file"):
        weight_bytes(entry(tmp_path))


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b"[" * 10_000, b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}'],
    ids=["list", "open", "deep", "number", "no-offsets"],
)
def test_file_with_another_header_is_told(tmp_path, header):
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        weight_bytes(entry(file))


def test_header_beyond_the_limit_is_not_read(tmp_path):
    write(tmp_path / "model.safetensors", F32=1)
    with pytest.raises(ValueError, match="more than 10"):
        weight_bytes(entry(tmp_path), max_header_bytes=10)
