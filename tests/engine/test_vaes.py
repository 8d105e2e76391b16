"""VAEs of requests: they decode as in stock diffusers, and those of other latents are refused."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from serve_app import errors
from serve_app.models import AddOn
from serve_app.pipelines.conversion import read_vae
from serve_app.testing.checkpoints import random_vae
from serve_app.testing.ldm_names import LEVELS, original_vae
from serve_app.types import GenerationSpec
from tests.engine.lora_files import save
from tests.engine.weaving import CPU, TOLERANCE, Weaver, difference, paint_stock

MakeSpec = Callable[..., GenerationSpec]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def weaver(folder: Callable[[str], Path]) -> Iterator[Weaver]:
    weaver = Weaver(folder("attention"), [])
    yield weaver
    weaver.engine.close()


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    torch.manual_seed(8)
    random_vae().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def in_makers_names(vae: Path, beginning: str) -> Path:
    """Write a VAE as a single file in the names of the first Stable Diffusion."""
    tensors = load_file(vae / WEIGHTS)
    named = {f"{beginning}{original_vae(name)}": tensor for name, tensor in tensors.items()}
    return save(named, vae.with_suffix(".safetensors"))


FORMS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda vae: vae,
    "file": lambda vae: vae / WEIGHTS,
    "makers-names": lambda vae: in_makers_names(vae, ""),
    "makers-names-prefixed": lambda vae: in_makers_names(vae, "first_stage_model."),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_vae_of_a_request_equals_stock_with_it(
    weaver: Weaver, folder: Callable[[str], Path], vae: Path, form: str, make_spec: MakeSpec
) -> None:
    weaver.known[:] = [AddOn(id="soft", type="vae", source=FORMS[form](vae))]
    spec = make_spec(vae="soft")
    own, woven, again = weaver.paint(make_spec(), spec, make_spec())
    stock = diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None, vae=AutoencoderKL.from_pretrained(vae)
    )
    assert difference(woven, paint_stock(stock, spec)) <= TOLERANCE
    assert difference(own, again) <= TOLERANCE
    assert difference(own, woven) > 0.02


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("names", ["makers", "old"])
def test_attention_of_a_file_is_that_of_the_folder(tmp_path: Path, names: str) -> None:
    torch.manual_seed(9)
    vae = AutoencoderKL(
        block_out_channels=(8,) * LEVELS,
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        norm_num_groups=4,
    )
    tensors = {}
    for name, tensor in vae.state_dict().items():
        is_conv = names == "makers" and "attentions" in name and tensor.ndim == 2
        old = name
        for new_part, old_part in OLD.items():
            old = old.replace(f".{new_part}.", f".{old_part}.")
        renamed = original_vae(name) if names == "makers" else old
        tensors[renamed] = tensor[:, :, None, None] if is_conv else tensor
    read = read_vae(save(tensors, tmp_path / "vae.safetensors"), vae.config).state_dict()
    assert read.keys() == vae.state_dict().keys()
    assert all(torch.equal(tensor, read[name]) for name, tensor in vae.state_dict().items())


def config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def weights(name: str, tensor: torch.Tensor | None, **header: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
        save(tensors, folder / WEIGHTS, **header)

    return change


def smaller(folder: Path) -> None:
    AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(folder)


BIAS = "decoder.conv_out.bias"
XL = {"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"}
MISFITS = [
    (config(scaling_factor=0.13025), "folder", "scaling_factor 0.13025, expected 0.18215"),
    (config(shift_factor=0.0609), "folder", "shift_factor 0.0609, expected None"),
    (config(latents_mean=[0.1] * 4), "folder", "latents_mean .* expected None"),
    (config(_class_name="AutoencoderTiny"), "folder", "class AutoencoderTiny, expected Auto"),
    (config(latent_channels=16), "folder", "files of another form"),
    (smaller, "folder", "latent cells of 2 pixels, expected 8"),
    (lambda folder: (folder / "config.json").unlink(), "folder", "files of another form"),
    (weights(BIAS, None), "folder", "files of another form|missing keys"),
    (weights("a", torch.ones(1)), "folder", "unexpected keys: a"),
    (weights(BIAS, torch.full((3,), torch.nan)), "folder", f"NaN or infinity in .*{BIAS}"),
    (weights("a", None, **XL), "folder", "a file for Stable Diffusion XL"),
    (weights("a", None, **XL), "file", "a file for Stable Diffusion XL"),
    (weights("a", torch.ones(1)), "file", "found a, which the model lacks"),
    (weights(BIAS, None), "file", rf"no {BIAS}, expected one of the shape \(3,\)"),
    (weights(BIAS, torch.ones(4)), "file", rf"{BIAS} of the shape \(4,\), expected \(3,\)"),
    (weights(BIAS, torch.full((3,), torch.nan)), "file", f"NaN or infinity in .*{BIAS}"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "form", "reason"), MISFITS)
def test_vae_that_does_not_fit_is_an_error_of_its_field(
    weaver: Weaver,
    vae: Path,
    harm: Callable[[Path], None],
    form: str,
    reason: str,
    make_spec: MakeSpec,
) -> None:
    harm(vae)
    weaver.known[:] = [
        AddOn(id="bad", type="vae", source=vae if form == "folder" else vae / WEIGHTS)
    ]
    before = weaver.paint(make_spec())[0]
    for _ in range(2):
        with pytest.raises(errors.AddOnMisfit) as caught:
            weaver.paint(make_spec(vae="bad"))
        assert caught.value.field == "vae"
        text = caught.value.public_message
        assert text.startswith("The VAE bad does not fit this model: found ")
        assert re.search(reason, text), text
        assert str(vae) not in text
    assert torch.equal(weaver.paint(make_spec())[0], before)


@pytest.mark.parametrize("said", ["stable-diffusion-v1/vae", "stable-diffusion-v2-512/vae"])
def test_vae_that_two_kinds_have_in_common_fits_both(
    weaver: Weaver, vae: Path, said: str, make_spec: MakeSpec
) -> None:
    weights("a", None, **{"modelspec.architecture": said})(vae)
    weaver.known[:] = [AddOn(id="soft", type="vae", source=vae)]
    assert weaver.paint(make_spec(vae="soft"))


@pytest.mark.parametrize("rows", [1, 3])
def test_forward_of_a_vae_takes_as_many_pictures_as_its_setting_says(
    folder: Callable[[str], Path], make_spec: MakeSpec, rows: int
) -> None:
    weaver = Weaver(folder("attention"), [], CPU.model_copy(update={"vae_rows": rows}))
    seen: list[int] = []
    decoder = weaver.checkpoint.vaes.own.module.decoder
    decoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        weaver.paint(*(make_spec(seed=seed) for seed in range(6)))
    finally:
        weaver.engine.close()
    assert (max(seen), sum(seen)) == (rows, 6)
