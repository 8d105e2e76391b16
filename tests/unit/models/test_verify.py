"""What `dreamserve models verify` finds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serve_app.config import CatalogueConfig
from serve_app.models import AddOn
from serve_app.models.weights.files import Refused, check_headers
from serve_app.models.weights.finite import first_non_finite
from serve_app.models.weights.verify import verify


def add_on(source, **changes):
    return AddOn(id="a", **{"type": "embedding", "source": source} | changes)


def write_bfloat16(path, bits):
    """numpy has no such type: the format by hand."""
    data = np.array(bits, "<u2").tobytes()
    about = {"w": {"dtype": "BF16", "shape": [len(bits)], "data_offsets": [0, len(data)]}}
    header = json.dumps(about).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_tensor_is_named(tmp_path, dtype, bad):
    tensors = {"a": np.ones(9, dtype), "b": np.array([1, -2, bad, 0], dtype)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert first_non_finite(tmp_path / "x.safetensors") == "b"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_extreme_but_finite_values_are_fine(tmp_path, dtype):
    about = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    save_file({"a": np.array([about.min, about.max, 0, 1], dtype)}, tmp_path / "x.safetensors")
    assert first_non_finite(tmp_path / "x.safetensors") is None


@pytest.mark.parametrize(("bits", "name"), [([0x3F80, 0x7F7F], None), ([0x3F80, 0xFF80], "w")])
def test_bfloat16_is_judged_by_its_bits(tmp_path, bits, name):
    write_bfloat16(tmp_path / "x.safetensors", bits)
    assert first_non_finite(tmp_path / "x.safetensors") == name


def test_sound_folder_gets_a_manifest_that_fits(tmp_path):
    (tmp_path / "token").mkdir()
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "token" / "x.safetensors")
    verdict = verify(add_on(tmp_path), CatalogueConfig())
    assert verdict.refused is None
    assert set(verdict.sha256) == {"token/x.safetensors"}
    again = verify(add_on(tmp_path, sha256=verdict.sha256), CatalogueConfig())
    assert again == verdict


@pytest.mark.parametrize(
    ("value", "changes", "reason"),
    [
        (1.0, {"sha256": "0" * 64}, "has the sha256"),
        (np.nan, {}, "x.safetensors: a holds NaN or infinite values"),
    ],
    ids=["hash", "nan"],
)
def test_bad_file_is_refused_with_the_reason(tmp_path, value, changes, reason):
    file = tmp_path / "x.safetensors"
    save_file({"a": np.full(3, value, np.float32)}, file)
    assert reason in verify(add_on(file, **changes), CatalogueConfig()).refused


def write_many(path, number):
    """So many tensors of one number each; what a file of this size usually has is one."""
    entries = (
        f'"lora_unet_{i}.lora_down.weight":'
        f'{{"dtype":"F32","shape":[1],"data_offsets":[{4 * i},{4 * i + 4}]}}'
        for i in range(number)
    )
    header = f"{{{','.join(entries)}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * number))


def test_file_is_opened_once_however_many_tensors_it_has(tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    write_many(file, 1000)
    opened, open_ = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *how: opened.append(self) or open_(self, *how))
    assert first_non_finite(file) is None
    assert opened == [file]


@pytest.mark.parametrize(
    ("number", "limits", "reason"),
    [
        (300_000, {}, "x.safetensors has a header of .* bytes; catalogue.max_header_bytes is"),
        (101, {"max_tensors": 100}, "x.safetensors has 101 tensors; catalogue.max_tensors is 100"),
        (100, {"max_tensors": 100}, None),
    ],
    ids=["header", "tensors", "fits"],
)
def test_file_of_very_many_tensors_is_refused(tmp_path, number, limits, reason):
    file = tmp_path / "x.safetensors"
    write_many(file, number)
    refused = verify(add_on(file, type="lora"), CatalogueConfig(**limits)).refused
    assert refused is None if reason is None else re.search(reason, refused)


def test_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    for name, file in {"gone": tmp_path / "gone", "a folder": tmp_path}.items():
        with pytest.raises(Refused, match=f"{name}.safetensors is truncated or not"):
            check_headers({f"{name}.safetensors": file}, max_bytes=1000, max_tensors=10)
