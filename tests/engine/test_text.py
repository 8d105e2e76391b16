"""Text embeddings: stock's own for plain prompts, chunked and weighted for others."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.text.encoding import (
    AS_TRAINED,
    TextCache,
    remember_encoding,
    text_arguments,
)
from serve_app.types import GenerationSpec, Kind
from tests.engine.test_families import make_xl

LONG = " ".join(["abc"] * 50)  # 150 letters, a token each


@pytest.fixture
def pipeline(
    checkpoint: Callable[[str], Checkpoint], make_spec: Callable[..., GenerationSpec]
) -> DiffusionPipeline:
    loaded = checkpoint("plain")
    return loaded.pipeline(Kind.TEXT2IMG, loaded.schedulers.make(make_spec()))


@pytest.fixture
def embed(
    pipeline: DiffusionPipeline, make_spec: Callable[..., GenerationSpec]
) -> Callable[..., dict[str, torch.Tensor]]:
    def embed(prompt: str, **changes: object) -> dict[str, torch.Tensor]:
        spec = make_spec(prompt=prompt, **changes)
        return dict(text_arguments(pipeline, spec, TextCache(4), AS_TRAINED))  # type: ignore[arg-type]

    return embed


def stock(pipeline: DiffusionPipeline, prompt: str, clip_skip: int | None = None) -> torch.Tensor:
    return pipeline.encode_prompt(prompt, "cpu", 1, False, clip_skip=clip_skip)[0]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("", ""),
        ("a cat, 8k", "a cat, 8k"),
        ("café 猫", "café 猫"),
        ("a (b:1.0)", "a b"),
        (r"a \(cat\)", "a (cat)"),
    ],
)
def test_text_plain_prompt_gets_stocks_embeddings(
    embed: Callable[..., dict[str, torch.Tensor]],
    pipeline: DiffusionPipeline,
    prompt: str,
    read: str,
) -> None:
    made = embed(prompt, negative_prompt="blurry")
    expected = pipeline.encode_prompt(read, "cpu", 1, True, "blurry")
    assert torch.equal(made["prompt_embeds"], expected[0])
    assert torch.equal(made["negative_prompt_embeds"], expected[1])


def test_text_long_prompt_keeps_every_token(
    embed: Callable[..., dict[str, torch.Tensor]], pipeline: DiffusionPipeline
) -> None:
    made = embed(LONG, negative_prompt="blurry")
    assert made["prompt_embeds"].shape[:2] == (1, 154)
    assert made["negative_prompt_embeds"].shape[:2] == (1, 154)
    halves = made["prompt_embeds"].split(77, dim=1)
    assert torch.allclose(halves[0], stock(pipeline, " ".join(["abc"] * 25)), atol=1e-5)
    negative = made["negative_prompt_embeds"].split(77, dim=1)
    assert torch.allclose(negative[0], stock(pipeline, "blurry"), atol=1e-5)
    assert torch.allclose(negative[1], stock(pipeline, ""), atol=1e-5)


def test_text_without_guidance_has_no_negative(
    embed: Callable[..., dict[str, torch.Tensor]],
) -> None:
    assert set(embed(LONG, guidance_scale=1.0)) == {"prompt_embeds"}


def test_text_weight_scales_its_tokens_alone(
    embed: Callable[..., dict[str, torch.Tensor]], pipeline: DiffusionPipeline
) -> None:
    weighted = embed("a (b:1.5) c")["prompt_embeds"]
    plain = stock(pipeline, "a b c")
    ratio = (weighted / plain).mean(dim=-1)[0]
    others = torch.cat([ratio[:2], ratio[3:]])
    assert torch.allclose(others, others[0].expand_as(others), atol=1e-4)
    assert float(ratio[2] / ratio[0]) == pytest.approx(1.5, abs=1e-3)


def test_text_clip_skip_of_weighted_prompt_equals_stocks(
    embed: Callable[..., dict[str, torch.Tensor]], pipeline: DiffusionPipeline
) -> None:
    made = embed(LONG, clip_skip=3)["prompt_embeds"][:, :77]
    expected = stock(pipeline, " ".join(["abc"] * 25), clip_skip=2)
    assert torch.allclose(made, expected, atol=1e-5)


def test_text_words_of_every_chunk_count(embed: Callable[..., dict[str, torch.Tensor]]) -> None:
    whole = " ".join(["abc"] * 25)  # fills the first chunk
    red, blue = (embed(f"{whole} {tail}")["prompt_embeds"].split(77, 1) for tail in ("red", "blue"))
    assert torch.equal(red[0], blue[0])
    assert not torch.allclose(red[1], blue[1], atol=1e-2)


def test_text_break_begins_a_chunk(
    embed: Callable[..., dict[str, torch.Tensor]], pipeline: DiffusionPipeline
) -> None:
    made = embed("a cat BREAK a dog", negative_prompt="blurry")
    for half, text in zip(made["prompt_embeds"].split(77, dim=1), ("a cat", "a dog"), strict=True):
        assert torch.allclose(half, stock(pipeline, text), atol=1e-5)
    assert made["negative_prompt_embeds"].shape[1] == 154


@pytest.mark.parametrize("side", ["prompt", "negative_prompt"])
def test_text_of_one_caller_is_never_anothers(
    pipeline: DiffusionPipeline, make_spec: Callable[..., GenerationSpec], side: str
) -> None:
    """One cache for all, as in a replica, gives each what a cache of its own gives it."""
    texts = ("a (green:1.2) star", "a red (circle:1.2)", "a purple square (large)", LONG, "a cat")
    cache = TextCache(64)
    changes: list[dict[str, object]] = [{"prompt": "a house"} | {side: text} for text in texts]
    if side == "prompt":  # stock has no clip_skip for the negative prompt
        changes += [{**change, "clip_skip": 2} for change in changes]
    specs = [make_spec(**change) for change in changes]
    shared = [text_arguments(pipeline, spec, cache, AS_TRAINED) for spec in specs * 2]
    alone = [text_arguments(pipeline, spec, TextCache(1), AS_TRAINED) for spec in specs]
    name = f"{side}_embeds"
    for number, made in enumerate(shared):
        assert torch.equal(made[name], alone[number % len(specs)][name])  # type: ignore[arg-type]
    for number, one in enumerate(alone):
        for other in alone[:number]:
            assert one[name].shape != other[name].shape or not torch.allclose(  # type: ignore[attr-defined]
                one[name],
                other[name],
                atol=1e-3,  # type: ignore[arg-type]
            )


def test_text_weight_of_nearly_one_is_nearly_plain(
    embed: Callable[..., dict[str, torch.Tensor]], pipeline: DiffusionPipeline
) -> None:
    made = embed("a (red:1.001) (circle:0.999) on blue", negative_prompt="(blurry:1.001)")
    for name, text in (("prompt", "a red circle on blue"), ("negative_prompt", "blurry")):
        plain = stock(pipeline, text)
        assert torch.allclose(made[f"{name}_embeds"], plain, atol=5e-3 * float(plain.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "xl"])
def test_text_embedding_of_several_vectors_keeps_them_all(
    folder: Callable[[str], Path],
    make_spec: Callable[..., GenerationSpec],
    tmp_path: Path,
    name: str,
) -> None:
    """Weighted and long texts with an embedding, beside stock's pipeline with the same vectors."""
    loaded = make_xl() if name == "xl" else diffusers.DiffusionPipeline.from_pretrained(
        folder(name), safety_checker=None
    )  # fmt: skip
    encoders = [(loaded.tokenizer, loaded.text_encoder)]
    if name == "xl":
        encoders.append((loaded.tokenizer_2, loaded.text_encoder_2))
    for tokenizer, encoder in encoders:
        vectors = torch.randn(4, encoder.config.hidden_size)
        loaded.load_textual_inversion(
            vectors, token="<sks>", text_encoder=encoder, tokenizer=tokenizer
        )
    words = "a <sks> cat"
    expected = loaded.encode_prompt(words, device="cpu", num_images_per_prompt=1,
                                    do_classifier_free_guidance=False)[0]  # fmt: skip
    alone = loaded.encode_prompt("a cat", device="cpu", num_images_per_prompt=1,
                                 do_classifier_free_guidance=False)[0]  # fmt: skip
    for prompt in (f"{words} BREAK the end", f"{words} BREAK (the end:1.3)"):
        spec = make_spec(prompt=prompt, guidance_scale=1.0)
        made = text_arguments(loaded, spec, TextCache(1), AS_TRAINED)["prompt_embeds"]
        assert torch.allclose(made[:, :77], expected, atol=1e-5)  # type: ignore[index]
    assert not torch.allclose(alone, expected, atol=1e-2)


@torch.no_grad()
def test_text_embedding_is_not_parted_by_the_end_of_a_chunk(
    folder: Callable[[str], Path], make_spec: Callable[..., GenerationSpec]
) -> None:
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder("plain"), safety_checker=None)
    width = loaded.text_encoder.config.hidden_size
    loaded.load_textual_inversion(torch.randn(4, width), token="<sks>")
    loaded.load_textual_inversion(torch.randn(80, width), token="<long>")

    def chunks(prompt: str) -> tuple[torch.Tensor, ...]:
        spec = make_spec(prompt=prompt, guidance_scale=1.0)
        made = text_arguments(loaded, spec, TextCache(1), AS_TRAINED)["prompt_embeds"]
        assert isinstance(made, torch.Tensor)
        return made.split(77, dim=1)

    words = " ".join(["abc"] * 24)  # three tokens each: three more have room
    first, second = chunks(f"{words} <sks> cat")
    assert torch.allclose(first, stock(loaded, words), atol=1e-5)
    assert torch.allclose(second, stock(loaded, "<sks> cat"), atol=1e-5)
    assert [part.shape[1] for part in chunks("<long>")] == [77, 77], "no chunk could hold it"


def test_remember_encoding_encodes_equal_texts_once(pipeline: DiffusionPipeline) -> None:
    cache = TextCache(4)
    remember_encoding(pipeline, cache, AS_TRAINED)
    first = pipeline.encode_prompt("a cat", "cpu", 1, True)
    assert pipeline.encode_prompt("a cat", "cpu", 1, True)[0] is first[0]
    assert pipeline.encode_prompt("a dog", "cpu", 1, True)[0] is not first[0]
    given = torch.zeros(1, 77, 32)
    passed = pipeline.encode_prompt(None, "cpu", 1, False, prompt_embeds=given)
    assert torch.equal(passed[0], given)


def test_text_cache_forgets_the_oldest() -> None:
    cache = TextCache(2)
    made: list[str] = []
    for key in ("a", "b", "a", "c", "a", "b"):
        cache.get(key, lambda key=key: made.append(key))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
