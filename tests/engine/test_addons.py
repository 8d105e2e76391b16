"""LoRA sets, token merging, VAEs and embeddings per request, in company of requests without."""

import asyncio
import copy
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import diffusers
import numpy as np
import pytest
import tomesd
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.models import AddOn, AddOnType, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns, FindAddOn
from serve_app.pipelines.addons.triggers import with_triggers
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.checkpoints import random_vae
from serve_app.types import GenerationSpec, Kind, LoraUse, Pictures
from tests.engine import weaving
from tests.weight_files import write_lora

# peft warns of a second adapter, which is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")


@pytest.fixture(scope="module")
def stock(folder: Callable[[str], Path]) -> DiffusionPipeline:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def add_ons(folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[AddOn]:
    root = tmp_path_factory.mktemp("addons")
    torch.manual_seed(11)
    for name in ("ink", "v1.5-gold"):
        write_lora(folder("attention"), root / name)
    random_vae().save_pretrained(root / "vae")
    random_vae().save_pretrained(root / "hard")
    save_file({"emb_params": torch.randn(2, 32)}, root / "style.safetensors")
    lora = "pytorch_lora_weights.safetensors"
    return [
        AddOn(id="ink", type="lora", source=root / "ink" / lora),
        AddOn(id="v1.5-gold", type="lora", source=root / "v1.5-gold" / lora),
        AddOn(id="elsewhere", type="lora", source=root / "none", models=("another",)),
        AddOn(id="soft", type="vae", source=root / "vae"),
        AddOn(id="hard", type="vae", source=root / "hard"),
        AddOn(id="style", type="embedding", source=root / "style.safetensors", trigger="sks"),
    ]


def finder(add_ons: Sequence[AddOn]) -> FindAddOn:
    """Look up in a sequence that may grow, as the catalogue does."""
    return lambda add_on_id, add_on_type: next(
        (item for item in add_ons if (item.id, item.type) == (add_on_id, add_on_type)), None
    )


@pytest.fixture(scope="module")
def painter(folder: Callable[[str], Path], add_ons: Sequence[AddOn]) -> Iterator[WeavePainter]:
    source = folder("attention")
    entry = ModelEntry(id="random", source=source, kinds=tuple(Kind), native_size_px=64)
    config = EngineConfig(device="cpu", turn_ticks=2, measure_rows=False)
    known = AddOns(entry.id, finder(add_ons))
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), known)
    yield painter
    painter.close()


def pixels(pictures: Pictures) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[0].data))).astype(int)


def paint_stock(stock: DiffusionPipeline, spec: GenerationSpec, **changes: object) -> np.ndarray:
    image = weaving.paint_stock(stock, spec, **changes).permute(1, 2, 0).numpy()
    return (image * 255).round().astype(int)


@pytest.fixture(scope="module")
def truth(
    folder: Callable[[str], Path], add_ons: Sequence[AddOn]
) -> Callable[[GenerationSpec], np.ndarray]:
    """Paint with stock diffusers and what a request names, each time from the files anew."""
    sources = {add_on.id: add_on.path for add_on in add_ons}
    untouched = diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None
    )

    def paint(spec: GenerationSpec) -> np.ndarray:
        pipeline = copy.deepcopy(untouched)
        for use in spec.loras:
            name = use.id.removeprefix("v1.5-")
            pipeline.load_lora_weights(sources[use.id], adapter_name=name)
            pipeline.set_adapters([name], [use.strength])
        if spec.vae is not None:
            pipeline.vae = diffusers.AutoencoderKL.from_pretrained(sources[spec.vae])
        for name in spec.embeddings:
            pipeline.load_textual_inversion(sources[name], token="<sks>")
        prompt = spec.prompt.replace("sks", "<sks>") if spec.embeddings else spec.prompt
        return paint_stock(pipeline, spec, prompt=prompt)

    return paint


@pytest.mark.slow
async def test_lora_sets_in_one_engine_equal_stock_each(
    painter: WeavePainter,
    stock: DiffusionPipeline,
    add_ons: Sequence[AddOn],
    make_spec: Callable[..., GenerationSpec],
) -> None:
    ink, gold = LoraUse(id="ink", strength=0.8), LoraUse(id="v1.5-gold", strength=0.5)
    sets: list[tuple[LoraUse, ...]] = [(), (ink,), (gold,), (gold, ink)]
    specs = [make_spec(loras=loras, steps=5, seed=n) for n, loras in enumerate(sets * 2)]
    woven = await asyncio.gather(
        *(painter.paint(number, spec, None) for number, spec in enumerate(specs))
    )
    base = paint_stock(stock, specs[0])
    stock.load_lora_weights(add_ons[0].source, adapter_name="ink")
    stock.load_lora_weights(add_ons[1].source, adapter_name="gold")
    for spec, result in zip(specs, woven, strict=True):
        if spec.loras:
            stock.enable_lora()
            names = [use.id.removeprefix("v1.5-") for use in spec.loras]
            stock.set_adapters(names, [use.strength for use in spec.loras])
        else:
            stock.disable_lora()
        assert np.abs(pixels(result) - paint_stock(stock, spec)).max() <= 1
    stock.unload_lora_weights()
    assert np.abs(pixels(woven[0]) - base).max() <= 1
    assert np.abs(pixels(woven[1]) - pixels(woven[0])).max() > 8, "the LoRA does something"
    counts = painter.snapshot()
    assert counts.rows > 2 * counts.forwards


@pytest.mark.slow
async def test_tomesd_next_to_requests_without_equals_stock(
    painter: WeavePainter, stock: DiffusionPipeline, make_spec: Callable[..., GenerationSpec]
) -> None:
    specs = [make_spec(tomesd=bool(n % 2), steps=6, seed=n) for n in range(4)]
    woven = await asyncio.gather(*(painter.paint(n, spec, None) for n, spec in enumerate(specs)))
    for spec, result in zip(specs, woven, strict=True):
        if spec.tomesd:
            tomesd.apply_patch(stock, ratio=0.5, use_rand=False)
        expected = paint_stock(stock, spec)
        tomesd.remove_patch(stock)
        assert np.abs(pixels(result) - expected).max() <= 1


def test_embedding_without_its_trigger_goes_to_the_end(
    painter: WeavePainter, make_spec: Callable[..., GenerationSpec]
) -> None:
    def apply(**changes: object) -> tuple[GenerationSpec, str]:
        spec = make_spec(embeddings=("style",), **changes)
        named = painter._add_ons.of(spec)
        triggered = with_triggers(spec, named.triggers)
        added, tokens = painter._checkpoint.embeddings.apply(triggered, named.embeddings)
        return added, tokens[0]

    spec, token = apply(prompt="a cat")
    assert spec.prompt == f"a cat {token}"
    spec, _ = apply(prompt="sks, tasks", negative_prompt="SKS")
    assert (spec.prompt, spec.negative_prompt) == (f"{token}, tasks", token)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "ran"),
    [
        ({"prompt": "a cat"}, {"prompt": "a cat sks"}),
        ({"prompt": "a Sks cat"}, {}),
        ({"prompt": "a cat", "negative_prompt": "sks"}, {}),
    ],
    ids=["put-at-the-end", "in-the-prompt", "in-the-negative"],
)
async def test_prompt_that_ran_has_the_word_of_the_embedding_and_not_its_token(
    painter: WeavePainter,
    make_spec: Callable[..., GenerationSpec],
    texts: dict[str, str],
    ran: dict[str, str],
) -> None:
    result = await painter.paint(1, make_spec(embeddings=("style",), **texts), None)
    assert result.ran == ran
    again = await painter.paint(
        2, make_spec(embeddings=("style",), **texts | result.ran), None
    )  # what ran, asked for, is the same picture
    assert np.abs(pixels(result) - pixels(again)).max() == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"loras": (LoraUse(id="none", strength=1),)}, "lora_model", id="lora"),
        pytest.param(
            {"loras": (LoraUse(id="elsewhere", strength=1),)}, "lora_model", id="other-models-lora"
        ),
        pytest.param({"vae": "none"}, "vae", id="vae"),
        pytest.param({"embeddings": ("none",)}, "embeddings_model", id="embedding"),
        pytest.param({"scheduler": "MagicScheduler"}, "scheduler", id="scheduler"),
    ],
)
async def test_unknown_name_is_refused_with_its_field(
    painter: WeavePainter,
    change: dict[str, object],
    field: str,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await painter.paint(1, make_spec(**change), None)
    assert caught.value.field == field


@pytest.mark.slow
async def test_add_ons_that_come_later_equal_stock(
    truth: Callable[[GenerationSpec], np.ndarray],
    folder: Callable[[str], Path],
    add_ons: Sequence[AddOn],
    make_spec: Callable[..., GenerationSpec],
) -> None:
    spec = make_spec(
        prompt="a sks cat",
        loras=(LoraUse(id="ink", strength=1),),
        vae="soft",
        embeddings=("style",),
    )
    grown: list[AddOn] = []
    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    config = EngineConfig(device="cpu", measure_rows=False)
    later = WeavePainter(
        entry, config, load_checkpoint(entry, config), AddOns(entry.id, finder(grown))
    )
    try:
        with pytest.raises(errors.InvalidRequest):
            await later.paint(1, spec, None)
        plain, _ = await asyncio.gather(later.paint(2, make_spec(), None), asyncio.sleep(0))
        grown += add_ons
        added, beside = await asyncio.gather(
            later.paint(3, spec, None), later.paint(4, make_spec(), None)
        )
    finally:
        later.close()
    assert np.abs(pixels(added) - truth(spec)).max() <= 1
    for picture in (beside, plain):
        assert np.abs(pixels(picture) - truth(make_spec())).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("add_on_type", ["lora", "vae", "embedding"])
async def test_add_on_that_does_not_fit_fails_its_job_alone_each_time(
    painter: WeavePainter,
    add_ons: list[AddOn],
    tmp_path: Path,
    add_on_type: AddOnType,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    save_file({"misfit": torch.ones(2, 7)}, tmp_path / "bad.safetensors")
    add_ons.append(AddOn(id="bad", type=add_on_type, source=tmp_path / "bad.safetensors"))
    use, field = {
        "lora": ({"loras": (LoraUse(id="bad", strength=1),)}, "lora_model"),
        "vae": ({"vae": "bad"}, "vae"),
        "embedding": ({"embeddings": ("bad",)}, "embeddings_model"),
    }[add_on_type]
    try:
        before = await painter.paint(1, make_spec(), None)
        for _ in range(2):
            failed, fine = await asyncio.gather(
                painter.paint(2, make_spec(**use), None),
                painter.paint(3, make_spec(), None),
                return_exceptions=True,
            )
            assert isinstance(failed, errors.AddOnMisfit)
            assert (failed.field, failed.retryable) == (field, False)
            assert isinstance(fine, Pictures)
            assert np.abs(pixels(fine) - pixels(before)).max() <= 1
    finally:
        add_ons.pop()


async def test_file_that_was_replaced_is_another_add_on_from_the_next_request_on(
    painter: WeavePainter,
    add_ons: list[AddOn],
    tmp_path: Path,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    for number in range(2):
        torch.manual_seed(number)
        save_file(random_vae().state_dict(), tmp_path / f"{number}.safetensors")
    file = tmp_path / "current.safetensors"
    add_ons.append(AddOn(id="changing", type="vae", source=file))
    found = []
    for number in (0, 0, 1):
        (tmp_path / "new").write_bytes((tmp_path / f"{number}.safetensors").read_bytes())
        (tmp_path / "new").replace(file)
        found.append(pixels(await painter.paint(1, make_spec(vae="changing"), None)))
    add_ons.pop()
    assert np.abs(found[0] - found[1]).max() <= 1
    assert np.abs(found[0] - found[2]).max() > 8


@pytest.fixture
def stingy(folder: Callable[[str], Path], add_ons: Sequence[AddOn]) -> Iterator[WeavePainter]:
    """A painter that keeps nothing but what is in use."""
    entry = ModelEntry(
        id="random", source=folder("attention"), kinds=tuple(Kind), native_size_px=64
    )
    config = EngineConfig(device="cpu", measure_rows=False, lora_bytes=0, vae_bytes=0)
    known = AddOns(entry.id, finder(add_ons))
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), known)
    yield painter
    painter.close()


def adapters(painter: WeavePainter) -> int:
    return len(getattr(painter._checkpoint.base.unet, "peft_config", {}))


@pytest.mark.slow
async def test_loras_leave_for_others_and_come_back_the_same(
    truth: Callable[[GenerationSpec], np.ndarray],
    stingy: WeavePainter,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    ink, gold = (
        make_spec(loras=(LoraUse(id=name, strength=0.8),), seed=3) for name in ("ink", "v1.5-gold")
    )
    plain = make_spec(seed=3)
    for spec in (ink, gold, plain, ink, gold):
        made = await stingy.paint(1, spec, None)
        assert np.abs(pixels(made) - truth(spec)).max() <= 1
        assert adapters(stingy) <= 1


@pytest.mark.slow
async def test_loras_of_jobs_at_work_stay(
    truth: Callable[[GenerationSpec], np.ndarray],
    stingy: WeavePainter,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    names = ("ink", "v1.5-gold") * 2
    specs = [
        make_spec(loras=(LoraUse(id=name, strength=0.8),), steps=6, seed=n)
        for n, name in enumerate(names)
    ]
    woven = await asyncio.gather(*(stingy.paint(n, spec, None) for n, spec in enumerate(specs)))
    for spec, made in zip(specs, woven, strict=True):
        assert np.abs(pixels(made) - truth(spec)).max() <= 1


@pytest.mark.slow
async def test_vaes_leave_for_others(
    truth: Callable[[GenerationSpec], np.ndarray],
    stingy: WeavePainter,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    loaded = stingy._checkpoint.vaes._loaded._things
    for name in ("soft", "hard", "soft"):
        spec = make_spec(vae=name)
        made = await stingy.paint(1, spec, None)
        assert np.abs(pixels(made) - truth(spec)).max() <= 1
        assert len(loaded) == 1
