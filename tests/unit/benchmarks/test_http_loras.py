"""The LoRAs of the HTTP benchmark, and the requests that name them."""

import itertools
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.http.loras import NAMES, write_loras
from benchmarks.http.traffic import mixed, with_loras
from benchmarks.lora_mix import POPULARITY


def test_random_loras_have_the_layers_of_the_trained_ones(tmp_path):
    write_loras(tmp_path)
    files = {file.stem: load_file(file) for file in tmp_path.iterdir()}
    assert set(files) == set(NAMES)
    trained = files["heart"]
    for tensors in files.values():
        assert {name: (each.shape, each.dtype) for name, each in tensors.items()} == {
            name: (each.shape, each.dtype) for name, each in trained.items()
        }
    key = next(iter(trained))
    own = [files[name][key].float() for name in NAMES if name.startswith("random")]
    assert all(torch.isfinite(each).all() for each in own)
    assert not torch.equal(own[0], own[1])
    spreads = [float(each.std() / trained[key].float().std()) for each in own]
    assert spreads == pytest.approx([1.0] * len(own), abs=0.2)


@pytest.mark.slow
def test_requests_name_loras_as_the_trace_does():
    bodies = list(itertools.islice(with_loras(1), 2_000))
    named = [tuple(filter(None, str(body.get("lora_model", "")).split(","))) for body in bodies]
    sizes = Counter(map(len, named))
    shares = [sizes[size] / len(named) for size in range(3)]
    assert shares == pytest.approx([0.05, 0.04, 0.91], abs=0.02)
    firsts = Counter(names[0] for names in named if names)
    expected = float(POPULARITY[0] / POPULARITY[: len(NAMES)].sum())
    assert firsts[NAMES[0]] / firsts.total() == pytest.approx(expected, abs=0.04)
    assert set(firsts) == set(NAMES)
    for body, names in zip(bodies, named, strict=True):
        assert len(set(names)) == len(names)
        assert len([part for part in str(body.get("lora_strength", "")).split(",") if part]) == len(
            names
        )


def test_loras_change_nothing_else_of_the_requests():
    for plain, with_some in itertools.islice(zip(mixed(3), with_loras(3), strict=False), 60):
        rest = {name: value for name, value in with_some.items() if "lora" not in name}
        assert rest == plain
