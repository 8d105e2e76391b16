"""Embeddings: vectors for every text encoder, as stock diffusers loads them, or none at all."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app import errors
from serve_app.models import AddOn
from serve_app.types import GenerationSpec
from tests.engine.lora_files import save
from tests.engine.test_families import make_flux, make_xl
from tests.engine.weaving import TOLERANCE, Weaver, difference, paint_stock

MakeSpec = Callable[..., GenerationSpec]
Tensors = dict[str, torch.Tensor]
WIDTH = 32  # of the random text encoders


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("xl")
    make_xl().save_pretrained(folder)
    return folder


@pytest.fixture
def weave(
    folder: Callable[[str], Path], xl: Path, tmp_path: Path
) -> Iterator[Callable[..., Weaver]]:
    """Load a model, each time anew, with one embedding `sun`."""
    made: list[Weaver] = []

    def load(model: str, tensors: Tensors, **header: str) -> Weaver:
        file = save(tensors, tmp_path / "sun.safetensors", **header)
        source = xl if model == "xl" else folder("attention")
        made.append(Weaver(source, [AddOn(id="sun", type="embedding", source=file)]))
        return made[-1]

    yield load
    for weaver in made:
        weaver.engine.close()


@pytest.fixture(scope="module")
def refusing(folder: Callable[[str], Path], xl: Path) -> Iterator[Callable[[str], Weaver]]:
    """Give a model that takes in no embedding, and so serves all that refuse one."""
    made: dict[str, Weaver] = {}

    def give(model: str) -> Weaver:
        if model not in made:
            made[model] = Weaver(xl if model == "xl" else folder("attention"), [])
        return made[model]

    yield give
    for weaver in made.values():
        weaver.engine.close()


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def stock(folder: Path, of_encoders: dict[str, torch.Tensor]) -> DiffusionPipeline:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    for suffix, vectors in of_encoders.items():
        pipeline.load_textual_inversion(
            vectors,
            token="<sun>",
            text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
            tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
        )
    return pipeline


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (3, WIDTH)])
def test_embedding_of_one_encoder_equals_stock(
    weave: Callable[..., Weaver],
    folder: Callable[[str], Path],
    shape: tuple[int, ...],
    make_spec: MakeSpec,
) -> None:
    vectors = drawn(*shape)
    weaver = weave("sd", {"emb_params": vectors})
    plain = make_spec(prompt="a sun in the sky")
    named = make_spec(prompt="a Sun in the sky", embeddings=("sun",))
    before, woven, after = weaver.paint(plain, named, plain)
    expected = stock(folder("attention"), {"": vectors})
    truth = paint_stock(expected, named, prompt="a <sun> in the sky")
    assert difference(woven, truth) <= TOLERANCE
    assert difference(before, truth) > 0.01
    assert difference(before, after) <= TOLERANCE
    assert difference(after, paint_stock(expected, plain)) <= TOLERANCE


@pytest.mark.slow
def test_embedding_of_two_encoders_equals_stock_on_every_replica(
    weave: Callable[..., Weaver], xl: Path, make_spec: MakeSpec
) -> None:
    """Each replica has a token of its own, which must not show."""
    vectors = {"clip_l": drawn(2, WIDTH), "clip_g": drawn(2, WIDTH) * 2}
    spec = make_spec(prompt="a sun in the sky", embeddings=("sun",))
    pictures = [weave("xl", vectors).paint(spec)[0] for _ in range(2)]
    expected = stock(xl, {"": vectors["clip_l"], "_2": vectors["clip_g"]})
    truth = paint_stock(expected, spec, prompt="a <sun> in the sky")
    for picture in pictures:
        assert difference(picture, truth) <= TOLERANCE
    assert torch.equal(*pictures)
    assert difference(truth, paint_stock(expected, spec)) > 1e-3, "it does something"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["clip_l", "clip_g"])
def test_encoder_that_a_file_has_no_vectors_for_reads_the_text_without_the_word(
    weave: Callable[..., Weaver], xl: Path, make_spec: MakeSpec, key: str
) -> None:
    vectors = drawn(2, WIDTH) * 2
    spec = make_spec(prompt="a sun in the (sky:1)", negative_prompt="no sun", embeddings=("sun",))
    weaver = weave("xl", {key: vectors})
    plain, woven, again = weaver.paint(make_spec(), spec, make_spec())
    expected = stock(xl, {"" if key == "clip_l" else "_2": vectors})
    ends = ("", "_2") if key == "clip_l" else ("_2", "")
    texts = {
        f"{field}{end}": text.replace("sun", word)
        for end, word in zip(ends, ("<sun>", ""), strict=True)
        for field, text in (("prompt", "a sun in the sky"), ("negative_prompt", "no sun"))
    }
    truth = paint_stock(expected, spec, **texts)
    assert difference(woven, truth) <= TOLERANCE
    assert torch.equal(plain, again)
    both = {name.removesuffix("_2"): text for name, text in texts.items() if "<sun>" in text}
    assert difference(truth, paint_stock(expected, spec, **both)) > 1e-3, "the word is left out"


@pytest.mark.slow
def test_embeddings_whose_words_overlap_or_are_one_all_act(
    folder: Callable[[str], Path], tmp_path: Path, make_spec: MakeSpec
) -> None:
    words = {"a": "bad", "b": "bad-5", "c": "BAD"}
    vectors = {name: drawn(2, WIDTH) * scale for name, scale in zip(words, (1, 2, 3), strict=True)}
    files = {
        name: save({"v": own}, tmp_path / f"{name}.safetensors") for name, own in vectors.items()
    }
    add_ons = [
        AddOn(id=name, type="embedding", source=files[name], trigger=word)
        for name, word in words.items()
    ]
    expected = diffusers.DiffusionPipeline.from_pretrained(folder("attention"), safety_checker=None)
    for name, own in vectors.items():
        expected.load_textual_inversion(own, token=f"<{name}>")
    spec = make_spec(prompt="a bad-5 and a bad cat", embeddings=tuple(words))
    weaver = Weaver(folder("attention"), add_ons)
    with contextlib.closing(weaver.engine):
        woven = weaver.paint(spec)[0]
    truth = paint_stock(expected, spec, prompt="a <b> and a <a> <c> cat")
    assert difference(woven, truth) <= TOLERANCE


MISFITS = [
    pytest.param(
        "xl",
        {"emb_params": drawn(2, 768)},
        r"found emb_params \(2, 768\), expected clip_l of width 32 and clip_g of width 32",
        id="one-for-two",
    ),
    pytest.param("sd", {"clip_g": drawn(2, WIDTH)}, r"found clip_g \(2, 32\)", id="the-other"),
    pytest.param(
        "xl",
        {"clip_l": drawn(2, WIDTH), "clip_g": drawn(3, WIDTH)},
        "as many vectors for each",
        id="numbers-differ",
    ),
    pytest.param(
        "xl",
        {"clip_l": drawn(2, WIDTH), "clip_g": drawn(2, 1280)},
        "vectors of width 1280, expected width 32",
        id="width-of-the-second",
    ),
    pytest.param(
        "sd",
        {"clip_l": drawn(2, WIDTH), "clip_g": drawn(2, WIDTH)},
        "expected clip_l of width 32",
        id="two-for-one",
    ),
    pytest.param("sd", {"a": drawn(2, 1024)}, "width 1024, expected width 32", id="width"),
    pytest.param("sd", {"a": drawn(1, 2, WIDTH)}, r"shape \(1, 2, 32\)", id="dimensions"),
    pytest.param("sd", {"a": torch.ones(())}, r"shape \(\)", id="number"),
    pytest.param("sd", {"a": drawn(0, WIDTH)}, r"shape \(0, 32\)", id="none"),
    pytest.param("sd", {"a": torch.ones(2, WIDTH, dtype=torch.int32)}, "shape", id="integers"),
    pytest.param("sd", {"a": drawn(1, WIDTH), "b": drawn(1, WIDTH)}, "found 2 tensors", id="keys"),
    pytest.param("sd", {}, "found 0 tensors, expected one", id="empty"),
    pytest.param("xl", {}, "found no tensors, expected clip_l", id="empty-for-two"),
    pytest.param("sd", {"a": drawn(1, WIDTH) / 0}, "NaN or infinity", id="infinite"),
]


@pytest.mark.parametrize(("model", "tensors", "reason"), MISFITS)
def test_embedding_that_does_not_fit_is_an_error_of_its_field(
    refusing: Callable[[str], Weaver],
    tmp_path: Path,
    model: str,
    tensors: Tensors,
    reason: str,
    make_spec: MakeSpec,
) -> None:
    weaver = refusing(model)
    file = save(tensors, tmp_path / "sun.safetensors")
    weaver.known[:] = [AddOn(id="sun", type="embedding", source=file)]
    for _ in range(2):
        assert_refused(weaver, make_spec, reason)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tensors", "reason"), MISFITS)
def test_embedding_that_does_not_fit_changes_no_picture(
    refusing: Callable[[str], Weaver],
    tmp_path: Path,
    model: str,
    tensors: Tensors,
    reason: str,
    make_spec: MakeSpec,
) -> None:
    weaver, plain = refusing(model), make_spec(steps=1)
    file = save(tensors, tmp_path / "sun.safetensors")
    weaver.known[:] = [AddOn(id="sun", type="embedding", source=file)]
    before = weaver.paint(plain)[0]
    assert_refused(weaver, make_spec, reason)
    assert torch.equal(weaver.paint(plain)[0], before)


def assert_refused(weaver: Weaver, make_spec: MakeSpec, reason: str) -> None:
    with pytest.raises(errors.AddOnMisfit) as caught:
        weaver.paint(make_spec(embeddings=("sun",)))
    text = caught.value.public_message
    assert caught.value.field == "embeddings_model"
    assert text.startswith("The embedding sun does not fit this model: found ")
    assert re.search(reason, text), text


def test_embedding_of_another_family_is_refused_by_its_header(
    weave: Callable[..., Weaver], make_spec: MakeSpec
) -> None:
    said = {"modelspec.architecture": "stable-diffusion-xl-v1-base/textual-inversion"}
    weaver = weave("sd", {"clip_l": drawn(1, WIDTH)}, **said)
    assert_refused(weaver, make_spec, "a file for Stable Diffusion XL")


@pytest.mark.slow
def test_embedding_is_tried_again_after_memory_ended_half_way(
    weave: Callable[..., Weaver],
    xl: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    vectors = {"clip_l": drawn(2, WIDTH), "clip_g": drawn(2, WIDTH)}
    weaver = weave("xl", vectors)
    spec = make_spec(prompt="a sun", embeddings=("sun",))

    def end_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    second = weaver.checkpoint.base.text_encoder_2
    monkeypatch.setattr(second, "resize_token_embeddings", end_of_memory)
    with pytest.raises(errors.OutOfMemory):
        weaver.paint(spec)
    monkeypatch.undo()
    expected = stock(xl, {"": vectors["clip_l"], "_2": vectors["clip_g"]})
    truth = paint_stock(expected, spec, prompt="a <sun>")
    assert difference(weaver.paint(spec)[0], truth) <= TOLERANCE


def test_words_of_a_library_do_not_reach_the_client(
    weave: Callable[..., Weaver], monkeypatch: pytest.MonkeyPatch, make_spec: MakeSpec
) -> None:
    weaver = weave("sd", {"a": drawn(1, WIDTH)})

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("shape {input_embeddings.shape[-1]} /srv/models")

    monkeypatch.setattr(weaver.checkpoint.base, "load_textual_inversion", refuse)
    assert_refused(weaver, make_spec, "files of another form, expected vectors for the model's")


def test_model_that_t5_reads_for_takes_no_embeddings(tmp_path: Path, make_spec: MakeSpec) -> None:
    make_flux().save_pretrained(tmp_path / "flux")
    file = save({"clip_l": drawn(1, WIDTH)}, tmp_path / "sun.safetensors")
    weaver = Weaver(tmp_path / "flux", [AddOn(id="sun", type="embedding", source=file)])
    with pytest.raises(errors.InvalidRequest, match="takes no embeddings") as caught:
        weaver.paint(make_spec(embeddings=("sun",)))
    weaver.engine.close()
    assert caught.value.field == "embeddings_model"
