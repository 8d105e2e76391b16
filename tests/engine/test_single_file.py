"""A checkpoint as one file, with the names that the first Stable Diffusion used, loads the same.

Also when it has nothing beside it, or lacks parts that its entry names.
"""

import gc
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from serve_app import errors
from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.bases.base import BASES, Base
from serve_app.models.weights import settings
from serve_app.models.weights.resolve import resolve
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.single_file import read_components
from serve_app.pipelines.soundness import check_tensor
from serve_app.pipelines.tensor_reader import TensorReader
from serve_app.testing.ldm_names import original
from serve_app.types import Kind
from tests.builders import spec
from tests.engine.lora_files import save
from tests.weight_files import TEXT, rewrite

PARTS = ("unet", "vae", "text_encoder")
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
VAE = "vae/diffusion_pytorch_model.safetensors"
Load = Callable[..., Checkpoint]


@pytest.fixture
def small(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the architecture of Stable Diffusion 1 be as small as the checkpoint of these tests."""
    told = BASES["sd1"].parts
    parts = {
        name: json.loads((folder("deep") / name / "config.json").read_text()) for name in PARTS
    }
    small = Base(
        family="StableDiffusion",
        category="stable_diffusion",
        native_size_px=64,
        options={},
        parts={**parts, "tokenizer": told["tokenizer"], "scheduler": told["scheduler"]},
    )
    monkeypatch.setitem(settings.BASES, "sd1", small)


@pytest.fixture
def load(checkpoint: Callable[[str], Checkpoint], tmp_path: Path) -> Load:
    """Write the parts that are named into one file, and load it."""

    def load(
        *parts: str,
        extra: Mapping[str, torch.Tensor] | None = None,
        without: str | None = None,
        renamed: Callable[[str], str] = lambda name: name,
        max_tensors: int = 20_000,
        **said: object,
    ) -> Checkpoint:
        file = tmp_path / "model.safetensors"
        prefixes = tuple(PREFIXES[part] for part in parts)
        named = original(checkpoint("deep").base)
        weights = {n: weight.contiguous() for n, weight in named if n.startswith(prefixes)}
        if without is not None:
            del weights[without]
        weights = {renamed(name): weight for name, weight in weights.items()}
        save_file({**weights, **(extra or {})}, file)
        entry = ModelEntry(id="one", source=file, kinds=(Kind.TEXT2IMG,), **said)
        catalogue = CatalogueConfig(cache_dir=tmp_path / "cache", max_tensors=max_tensors)
        entry = resolve(entry, catalogue)
        return load_checkpoint(entry, EngineConfig(device="cpu"))

    return load


@pytest.fixture
def assert_equal(checkpoint: Callable[[str], Checkpoint]) -> Callable[[Checkpoint], None]:
    """Compare with the folder, weight by weight."""

    def compare(single: Checkpoint) -> None:
        for part in PARTS:
            loaded = getattr(single.base, part).state_dict()
            expected = getattr(checkpoint("deep").base, part).state_dict()
            assert loaded.keys() == expected.keys()
            assert all(torch.equal(weight, expected[name]) for name, weight in loaded.items())

    return compare


def halve(tensors):
    for name, tensor in tensors.items():
        tensors[name] = tensor / 2


def test_single_file_gives_the_weights_of_the_folder(load, assert_equal, folder):
    assert_equal(load(*PARTS, base_config=folder("deep")))


@pytest.mark.usefixtures("small")
def test_file_with_nothing_beside_it_is_known_by_its_header(load, assert_equal):
    single = load(*PARTS)
    assert_equal(single)
    assert type(single.base).__name__ == "StableDiffusionPipeline"
    made = single.schedulers.make(spec(scheduler="DDIMScheduler")).config
    assert made.prediction_type == "epsilon"


MARKS = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("field", [None, "base", "base_config"])
def test_keys_of_v_prediction_with_zero_signal_are_heeded(load, folder, field):
    said = {} if field is None else {field: folder("deep")}
    for scheduler in ("DDIMScheduler", "EulerDiscreteScheduler"):
        made = load(*PARTS, extra=MARKS, **said).schedulers.make(spec(scheduler=scheduler))
        told = made.config
        assert (told.prediction_type, told.timestep_spacing) == ("v_prediction", "trailing")
        assert told.rescale_betas_zero_snr


def test_entry_corrects_what_a_file_tells(load, folder):
    said = {"base": folder("deep"), "prediction_type": "epsilon", "zero_snr": False}
    told = load(*PARTS, extra=MARKS, **said).schedulers.make(spec(scheduler="DDIMScheduler")).config
    assert told.prediction_type == "epsilon"
    assert not told.rescale_betas_zero_snr


def test_zero_signal_is_heeded_whatever_scheduler_a_folder_has(folder, tmp_path):
    source = shutil.copytree(folder("deep"), tmp_path / "pndm")
    settings = source / "scheduler" / "scheduler_config.json"
    told = json.loads(settings.read_text()) | {"_class_name": "PNDMScheduler"}
    told.pop("rescale_betas_zero_snr", None)
    settings.write_text(json.dumps(told))
    index = source / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "PNDMScheduler"))
    entry = ModelEntry(id="one", source=source, kinds=(Kind.TEXT2IMG,), zero_snr=True)
    loaded = load_checkpoint(entry, EngineConfig(device="cpu"))
    made = loaded.schedulers.make(spec(scheduler="EulerDiscreteScheduler")).config
    assert made.rescale_betas_zero_snr
    assert made.timestep_spacing == "trailing"


def test_vae_for_other_latents_is_refused(load, folder, tmp_path):
    other = shutil.copytree(folder("deep") / "vae", tmp_path / "vae")
    settings = json.loads((other / "config.json").read_text()) | {"scaling_factor": 0.13025}
    (other / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="scaling_factor"):
        load(*PARTS, base=folder("deep"), vae=other)


def test_settings_alone_are_enough_for_a_base_config(load, assert_equal, folder, tmp_path):
    def without_weights(_folder, names):
        return [name for name in names if name.endswith(".safetensors")]

    settings = shutil.copytree(folder("deep"), tmp_path / "settings", ignore=without_weights)
    (settings / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never read")
    assert_equal(load(*PARTS, base_config=settings))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_eight_bits_are_judged(dtype):
    check_tensor("good", torch.ones(3).to(dtype))
    with pytest.raises(ValueError, match="NaN"):
        check_tensor("bad", torch.tensor([1.0, torch.nan]).to(dtype))


REAL = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", REAL, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("place", [0, 500, 999])
def test_one_number_that_is_none_is_found_wherever_it_is(dtype, bad, place):
    tensor = torch.linspace(-6, 6, 1000).to(dtype)
    tensor[0], tensor[1] = torch.finfo(dtype).max, torch.finfo(dtype).min
    check_tensor("good", tensor)
    tensor[place] = bad
    with pytest.raises(ValueError, match="NaN or infinity in bad"):
        check_tensor("bad", tensor)


def test_number_too_large_for_the_dtype_of_a_text_encoder_is_told(checkpoint, folder, tmp_path):
    """It is whole in the file, and infinite once the library has converted it."""
    file, named = tmp_path / "model.safetensors", dict(original(checkpoint("deep").base))
    own = {
        name: t.clone() for name, t in named.items() if name.startswith(PREFIXES["text_encoder"])
    }
    name = PREFIXES["text_encoder"] + "transformer.text_model.final_layer_norm.bias"
    own[name][0] = 65520.0  # the least number beyond half precision
    save_file(own, file)
    wanted = (
        ModelEntry(id="one", source=file, kinds=(Kind.TEXT2IMG,)),
        folder("deep"),
        {"text_encoder": ("transformers", "CLIPTextModel")},
    )
    reader = TensorReader(copies=True, channels_last=False)
    read = read_components(*wanted, torch.float32, reader)["text_encoder"]
    assert torch.equal(dict(read.named_parameters())["final_layer_norm.bias"], own[name])
    with pytest.raises(Unfit, match=r"NaN or infinity in text_encoder: .*final_layer_norm\.bias"):
        read_components(*wanted, torch.float16, reader)


def test_tensors_without_real_numbers_are_fine():
    for tensor in (torch.zeros(0), torch.zeros(2, 0, dtype=torch.float16), torch.arange(3)):
        check_tensor("good", tensor)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("lacking", ["vae", "text_encoder"])
def test_what_a_file_lacks_comes_from_the_base_that_its_entry_names(
    load, assert_equal, folder, lacking
):
    assert_equal(load(*(part for part in PARTS if part != lacking), base=folder("deep")))


def test_text_encoders_and_vae_of_an_entry_stand_in_for_those_of_its_source(
    load, assert_equal, folder, tmp_path
):
    other = shutil.copytree(folder("deep"), tmp_path / "other")
    for name in (TEXT, VAE):
        rewrite(other, name, halve)
    named = {"vae": folder("deep") / "vae", "text_encoders": folder("deep")}
    assert_equal(load("unet", base=other, **named))
    assert_equal(load(*PARTS, base=other, **named))
    with pytest.raises(AssertionError):
        assert_equal(load("unet", base=other))


LOST = {
    "unet": "model.diffusion_model.middle_block.0.in_layers.0.weight",
    "vae": "first_stage_model.decoder.conv_in.weight",
    "text_encoder": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
}


@pytest.mark.parametrize("part", PARTS)
def test_file_that_lacks_a_tensor_is_refused(load, folder, part):
    with pytest.raises(Unfit, match=r"found no |found missing keys: "):
        load(*PARTS, without=LOST[part], base_config=folder("deep"))


LAYOUTS: dict[str, tuple[str, str]] = {  # another beginning of names, in place of the first
    "bare-unet": ("model.diffusion_model.", ""),
    "short-unet": ("model.diffusion_model.", "diffusion_model."),
    "old-text": ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),
    "new-text": ("cond_stage_model.transformer.", "text_encoders.clip_l.transformer."),
    "new-vae": ("first_stage_model.", "vae."),
}


@pytest.mark.parametrize(("old", "new"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_one_part_give_the_weights_of_the_folder(load, assert_equal, folder, old, new):
    parts = ("unet",) if "unet" in old or "diffusion" in old else PARTS
    base = {"base": folder("deep")}
    assert_equal(load(*parts, renamed=lambda name: name.replace(old, new), **base))


def test_pipeline_of_diffusers_in_one_file_gives_the_weights_of_the_folder(
    load, assert_equal, checkpoint, folder
):
    base = checkpoint("deep").base
    tensors = {
        f"{part}.{name}": tensor.contiguous()
        for part in PARTS
        for name, tensor in getattr(base, part).state_dict().items()
    }
    assert_equal(load(extra=tensors, base_config=folder("deep")))


@pytest.mark.parametrize("beginning", PREFIXES.values(), ids=PREFIXES)
def test_tensor_that_no_part_has_is_refused(load, folder, beginning):
    strange = {f"{beginning}transformer.strange.weight": torch.ones(3)}
    with pytest.raises(Unfit, match=r"strange\.weight, which the model lacks"):
        load(*PARTS, extra=strange, base_config=folder("deep"))


def test_part_that_nothing_has_is_refused_with_the_way_out(load, folder):
    with pytest.raises(Unfit, match=r"a file without text_encoder, .* in its entry"):
        load("unet", "vae", base_config=folder("deep"))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("beginning", ["", "first_stage_model.", "vae."])
def test_vae_of_an_entry_may_be_a_file(load, assert_equal, checkpoint, tmp_path, beginning):
    vae = {
        name.replace("first_stage_model.", beginning): tensor.contiguous()
        for name, tensor in original(checkpoint("deep").base)
        if name.startswith("first_stage_model.")
    }
    save_file(vae | {"loss.logvar": torch.zeros(())}, tmp_path / "vae.safetensors")
    assert_equal(load("unet", "text_encoder", vae=tmp_path / "vae.safetensors"))


@pytest.mark.usefixtures("small")
def test_vae_of_an_entry_for_another_kind_is_refused(load, checkpoint, tmp_path):
    vae = checkpoint("deep").base.vae.state_dict()
    said = {"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"}
    save(vae, tmp_path / "vae.safetensors", **said)
    with pytest.raises(Unfit, match="a file for Stable Diffusion XL"):
        load("unet", "text_encoder", vae=tmp_path / "vae.safetensors")


@pytest.mark.usefixtures("small")
def test_vae_of_an_entry_that_is_a_file_of_another_kind_is_refused(load, tmp_path):
    save_file({"emb_params": torch.zeros(8, 768)}, tmp_path / "vae.safetensors")
    with pytest.raises(errors.WeightsRefused, match=r"found an embedding .*, expected a VAE"):
        load("unet", "text_encoder", vae=tmp_path / "vae.safetensors")


@pytest.mark.usefixtures("small")
def test_file_is_read_ahead_and_copied_once(load, monkeypatch, tmp_path):
    asked = []

    def advise(descriptor, start, length, advice):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        asked.append((path, start, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    loaded = load(*PARTS)
    for thread in threading.enumerate():
        if thread.name == "read-ahead":
            thread.join(10)
    file = tmp_path / "model.safetensors"
    steps = [step for path, *step in asked if path == file]
    assert {advice for _, _, advice in steps} == {os.POSIX_FADV_WILLNEED}
    ends = [0, *(start + length for start, length, _ in steps)]
    assert [start for start, _, _ in steps] == ends[:-1]
    assert ends[-1] >= file.stat().st_size
    kernels = [w for w in loaded.base.unet.parameters() if w.dim() == 4 and min(w.shape[2:]) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in kernels)
    gc.collect()
    mapped = Path("/proc/self/maps").read_text()
    assert str(tmp_path / "model.safetensors") not in mapped


@pytest.mark.usefixtures("small")
def test_ema_copies_are_not_loaded(load, assert_equal):
    copies = {"model_ema.diffusion_modelinput_blocks00weight": torch.zeros(16, 4, 3, 3)}
    assert_equal(load(*PARTS, extra=copies))


@pytest.mark.slow
def test_file_beyond_the_default_limits_loads_where_the_operator_allows_it(
    load, assert_equal, folder
):
    many = {f"model_ema.{number}": torch.zeros(0) for number in range(20_000)}
    assert_equal(load(*PARTS, extra=many, max_tensors=30_000, base=folder("deep")))


def test_file_of_no_known_architecture_is_refused_with_the_way_out(tmp_path):
    file = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(3), "b": torch.zeros(3)}, file)
    entry = ModelEntry(id="odd", source=file, kinds=(Kind.TEXT2IMG,))
    with pytest.raises(errors.WeightsRefused, match=r"tensors of no known layout .*base_config"):
        resolve(entry, CatalogueConfig(cache_dir=tmp_path / "cache"))
