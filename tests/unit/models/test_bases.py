"""Settings of the published architectures as folders; what is made of them: `tests/engine`."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from serve_app.models.bases import vocabulary
from serve_app.models.bases.base import BASES
from serve_app.models.bases.vocabulary import VocabularyMissing, clip_vocabulary


def test_vocabulary_has_a_number_for_each_token():
    tokens, merges = clip_vocabulary()
    assert (len(tokens), len(merges)) == (49408, 48894)
    assert (tokens["<|startoftext|>"], tokens["<|endoftext|>"]) == (49406, 49407)


def test_first_tokens_are_the_bytes_as_characters_and_then_those_at_the_end_of_a_word():
    """The visible ones as they are, each of the others in its turn as one of those from 256 on."""
    tokens, _ = clip_vocabulary()
    numbers = {"!": 0, "~": 93, "¡": 94, "¬": 105, "®": 106, "ÿ": 187, "Ā": 188, "Ń": 255}
    assert {character: tokens[character] for character in numbers} == numbers
    for character, number in numbers.items():
        assert tokens[f"{character}</w>"] == 256 + number


def test_parts_that_no_painter_needs_are_none_of_the_folder(tmp_path):
    index = json.loads((BASES["sd1"].write(tmp_path) / "model_index.json").read_text())
    for name in ("safety_checker", "feature_extractor", "image_encoder"):
        assert index[name] == [None, None]
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["tokenizer"] == ["transformers", "CLIPTokenizer"]


def test_missing_vocabulary_is_told_with_the_way_out(monkeypatch):
    clip_vocabulary.cache_clear()
    monkeypatch.setattr(vocabulary, "_PACKAGE", "no_such_package")
    with pytest.raises(VocabularyMissing, match="pip install --no-deps open_clip_torch"):
        clip_vocabulary()


def test_order_of_settings_makes_no_other_folder(tmp_path):
    base = BASES["sd1"]
    turned = replace(base, parts=dict(reversed(base.parts.items())))
    folder = base.write(tmp_path)
    assert turned.write(tmp_path) == folder
    assert re.fullmatch("[0-9a-f]{16}", folder.name)
    assert replace(base, family="StableDiffusionXL").write(tmp_path) != folder


def test_inpainting_takes_a_mask_and_the_masked_picture(tmp_path):
    base = BASES["sdxl"]
    assert base.for_inpainting().parts["unet"]["in_channels"] == 9
    assert base.parts["unet"]["in_channels"] == 4
    assert base.for_inpainting().write(tmp_path) != base.write(tmp_path)


def test_folder_that_is_not_whole_is_written_again(tmp_path):
    folder = BASES["sd1"].write(tmp_path)
    (folder / "model_index.json").unlink()
    shutil.rmtree(folder / "unet")
    assert (BASES["sd1"].write(tmp_path) / "unet" / "config.json").is_file()
