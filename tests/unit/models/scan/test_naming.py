"""Ids and titles that are made of the names of files."""

import pytest

from serve_app.models.entry import AddOn
from serve_app.models.scan.naming import id_of, title_of

NAMES = {
    "My LoRA (v1.2) [abc]": "my-lora-v1.2-abc",
    "Café & Été": "cafe-ete",
    "_hidden.": "hidden",
    "a" * 200: "a" * 96,
    "絵": None,
    "--": None,
}


@pytest.mark.parametrize(("name", "wanted"), NAMES.items())
def test_ids_are_made_of_names(name, wanted):
    assert id_of(name) == wanted
    if wanted is not None:
        assert AddOn(id=wanted, type="vae", source="x").id == wanted


TITLES = {
    "Ink.safetensors": "Ink",
    "ink/pytorch_lora_weights.safetensors": "ink",
    "soft-vae/diffusion_pytorch_model.fp16.safetensors": "soft-vae",
    "sd15/vae/diffusion_pytorch_model.safetensors": "sd15 vae",
    "sd15/text_encoder_2/model-00001-of-00002.safetensors": "sd15 text_encoder_2",
    "models--acme--sd15/snapshots/0123/": "sd15",
    "models--acme--sd15/snapshots/0123/vae/": "sd15 vae",
    "sd 1.5/": "sd 1.5",
}


@pytest.mark.parametrize(("path", "wanted"), TITLES.items())
def test_files_with_names_of_libraries_are_called_by_their_folders(tmp_path, path, wanted):
    if path.endswith("/"):
        (tmp_path / path).mkdir(parents=True)
    assert title_of(tmp_path / path) == wanted
