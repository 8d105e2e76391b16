"""Folders in diffusers' form whose files are those of a variant, wholly or in part."""

import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
import yaml
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import AddOn, ModelEntry
from serve_app.models.inspect.match import check_match
from serve_app.models.weights.footprint import weight_bytes
from serve_app.models.weights.resolve import resolve
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.checkpoints import random_vae
from serve_app.testing.ldm_names import original
from serve_app.types import GenerationSpec
from tests.engine.weaving import TOLERANCE, Weaver, difference, paint_stock
from tests.hub_server import HubServer
from tests.weight_files import TEXT, rewrite

PARTS = ("unet", "vae", "text_encoder")
CPU = EngineConfig(device="cpu", measure_rows=False)
DOCS = Path(__file__).parents[2] / "docs" / "catalogue.md"


@pytest.fixture(scope="session")
def halves(folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint with stock diffusers as people publish the half of one."""
    stock = diffusers.StableDiffusionPipeline.from_pretrained(folder("deep"), safety_checker=None)
    target = tmp_path_factory.mktemp("halves") / "deep"
    stock.to(torch.float16).save_pretrained(target, variant="fp16")
    assert not list(target.rglob("*[a-z].safetensors"))
    return target


def load(source: Path, tmp_path: Path, **said: object) -> Checkpoint:
    values = {"id": "one", "source": source, "kinds": ["text2img"], **said}
    entry = resolve(
        ModelEntry.model_validate(values), CatalogueConfig(cache_dir=tmp_path / "cache")
    )
    return load_checkpoint(entry, CPU)


def assert_stock(checkpoint: Checkpoint, folder: Path, variant: str | None, *parts: str) -> None:
    """Compare with what stock diffusers loads, weight by weight."""
    stock = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, variant=variant, safety_checker=None
    )
    for part in parts or PARTS:
        loaded = getattr(checkpoint.base, part).state_dict()
        expected = getattr(stock, part).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in loaded.items())


@pytest.mark.slow
@pytest.mark.parametrize("said", [{}, {"variant": "fp16"}], ids=["found", "named"])
def test_folder_of_a_variant_alone_loads_as_in_stock(
    halves: Path, tmp_path: Path, said: dict[str, object]
) -> None:
    assert_stock(load(halves, tmp_path, **said), halves, "fp16")
    values = {"id": "one", "source": halves, "kinds": ["text2img"], **said}
    entry = ModelEntry.model_validate(values)
    check_match(entry, CatalogueConfig())
    loaded = load_checkpoint(entry, CPU).base.components.values()
    modules = [part for part in loaded if isinstance(part, torch.nn.Module)]
    assert weight_bytes(entry) == sum(w.nbytes for part in modules for w in part.parameters())


@pytest.mark.slow
def test_variant_of_an_entry_is_loaded_beside_whole_files(
    halves: Path, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    both = shutil.copytree(folder("deep"), tmp_path / "both")
    for file in halves.rglob("*.fp16.safetensors"):
        shutil.copy(file, both / file.relative_to(halves))
    assert_stock(load(both, tmp_path), both, None)
    assert_stock(load(both, tmp_path, variant="fp16"), both, "fp16")


def test_variant_of_one_component_completes_whole_files(
    halves: Path, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    mixed = shutil.copytree(folder("deep"), tmp_path / "mixed")
    (mixed / TEXT).unlink()
    shutil.copy(halves / "text_encoder" / "model.fp16.safetensors", mixed / "text_encoder")
    assert_stock(load(mixed, tmp_path), mixed, "fp16")


def test_lack_of_a_text_encoders_tensor_is_seen_in_a_variant(halves: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(halves, tmp_path / "broken")
    rewrite(broken, "text_encoder/model.fp16.safetensors", dict.popitem)
    with pytest.raises(ValueError, match="no tensor for weights of text_encoder"):
        load(broken, tmp_path)


@pytest.mark.slow
def test_parts_of_a_variant_stand_in_for_what_a_file_lacks(
    halves: Path, checkpoint: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    named = original(checkpoint("deep").base)
    unet = {name: w.contiguous() for name, w in named if name.startswith("model.diffusion")}
    save_file(unet, tmp_path / "unet.safetensors")
    for said in ({"base": halves}, {"base": halves, "vae": halves / "vae"}):
        single = load(tmp_path / "unet.safetensors", tmp_path, **said)
        assert_stock(single, halves, "fp16", "vae", "text_encoder")


@pytest.mark.slow
def test_vae_of_a_request_may_be_a_variant(
    folder: Callable[[str], Path], tmp_path: Path, make_spec: Callable[..., GenerationSpec]
) -> None:
    torch.manual_seed(8)
    random_vae().half().save_pretrained(tmp_path / "vae", variant="fp16")
    weaver = Weaver(folder("attention"), [AddOn(id="soft", type="vae", source=tmp_path / "vae")])
    spec = make_spec(vae="soft")
    (woven,) = weaver.paint(spec)
    weaver.engine.close()
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae", variant="fp16")
    stock = diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None, vae=vae
    )
    assert difference(woven, paint_stock(stock, spec)) <= TOLERANCE


def documented() -> list[str]:
    """Return the lines of docs/catalogue.md that name sources."""
    text = DOCS.read_text(encoding="utf-8").partition("## Where weights come from")[2]
    block = text.split("```")[1]
    return [line.partition(" #")[0].rstrip() for line in block.splitlines() if "source:" in line]


@pytest.fixture
def served(
    hub: HubServer, halves: Path, folder: Callable[[str], Path], tmp_path: Path
) -> dict[str, str]:
    """Put what the document names where this test can reach it; gives what to replace."""
    whole = folder("deep")
    both = {
        file.relative_to(root).as_posix(): file.read_bytes()
        for root in (whole, halves)
        for file in root.rglob("*")
        if file.is_file()
    }
    for revision in ("main", "v2"):
        hub.commit("acme/sd15", both, revision)
    stock = diffusers.StableDiffusionPipeline.from_pretrained(whole, safety_checker=None)
    named = {name: weight.contiguous() for name, weight in original(stock)}
    save_file(named, tmp_path / "sd15.safetensors")
    hub.commit("acme/loras", {"ink.safetensors": (tmp_path / "sd15.safetensors").read_bytes()})
    shutil.copytree(whole, tmp_path / "sd15")
    return {"/models": str(tmp_path)}


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_each_documented_source_loads(
    line: str,
    served: dict[str, str],
    hub: HubServer,
    halves: Path,
    folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    for text, here in served.items():
        line = line.replace(text, here)
    config = CatalogueConfig(cache_dir=tmp_path / "cache", hub_endpoint=hub.url)
    values = yaml.safe_load(line) | {"id": "one", "kinds": ["text2img"]}
    is_file = ".safetensors" in line and "files" not in line
    if is_file:  # of an architecture too small to be known
        values["base_config"] = folder("deep")
    loaded = load_checkpoint(resolve(ModelEntry.model_validate(values), config), CPU)
    is_half = "fp16" in line
    assert_stock(loaded, halves if is_half else folder("deep"), "fp16" if is_half else None)
