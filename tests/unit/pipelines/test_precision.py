"""What a dtype that an entry leaves to the device becomes."""

import pytest
import torch

from serve_app.models import ModelEntry
from serve_app.pipelines.precision import device_of, with_dtype
from serve_app.types import Kind


def entry(**changes):
    return ModelEntry(id="m", source="x", kinds=(Kind.TEXT2IMG,), **changes)


@pytest.mark.parametrize(
    ("category", "device", "has_range", "wanted"),
    [
        ("stable_diffusion_xl", "cuda", True, "float16"),
        ("stable_diffusion_xl", "cpu", True, "float32"),
        ("flux", "cuda", True, "bfloat16"),
        ("flux", "cuda", False, "float16"),
        ("stable_diffusion", "cuda", True, "float32"),
    ],
)
def test_half_precision_is_for_gpus(monkeypatch, category, device, has_range, wanted):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_range)
    made = with_dtype(entry(category=category), torch.device(device))
    assert made.dtype == wanted


def test_half_precision_that_a_gpu_only_imitates_is_none(monkeypatch):
    def is_supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert with_dtype(entry(category="flux"), torch.device("cuda")).dtype == "float16"


def test_named_dtype_stays():
    said = entry(category="flux", dtype="float32")
    assert with_dtype(said, torch.device("cuda")) is said


def test_device_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (device_of("auto").type, device_of("cuda:1").index) == ("cpu", 1)
