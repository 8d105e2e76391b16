"""Names of a single file become diffusers' names, or the file is refused with what is left."""

import pytest
import torch

from serve_app.pipelines import conversion
from serve_app.pipelines.addons.misfit import Unfit


@pytest.mark.parametrize(
    ("convert", "name"),
    [(conversion._flux, "x_embedder.weight"), (conversion._sd3, "pos_embed.proj.weight")],
    ids=["flux", "sd3"],
)
def test_names_of_diffusers_stay(convert, name):
    tensors = {name: torch.ones(1), "other": torch.ones(1)}
    assert convert(tensors, {}) is tensors


def test_what_a_converter_leaves_is_told_by_name():
    def convert(tensors):
        return {f"new.{name}": tensors.pop(name) for name in ("a", "b")}

    tensors = {name: torch.ones(1) for name in "ab"}
    assert conversion._emptied(dict(tensors), convert) == {
        f"new.{name}": tensor for name, tensor in tensors.items()
    }
    with pytest.raises(Unfit, match="found strange, which the model lacks"):
        conversion._emptied(tensors | {"strange": torch.ones(1)}, convert)


def test_what_a_converter_loses_is_told_by_name():
    tensors = {name: torch.ones(1) for name in ("a", "strange")}
    assert conversion._all_of(tensors, tensors) is tensors
    with pytest.raises(Unfit, match="found strange, which the model lacks"):
        conversion._all_of(tensors, {"new": tensors["a"]})
