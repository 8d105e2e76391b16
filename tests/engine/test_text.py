"""Text embeddings: stock's own for plain prompts, chunked and weighted for others."""

from collections.abc import Callable

import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.embeds import TextCache, remember_encoding, text_arguments
from serve_app.types import GenerationSpec, Kind

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
        return dict(text_arguments(pipeline, spec, TextCache(4), ()))  # type: ignore[arg-type]

    return embed


def stock(pipeline: DiffusionPipeline, prompt: str, clip_skip: int | None = None) -> torch.Tensor:
    return pipeline.encode_prompt(prompt, "cpu", 1, False, clip_skip=clip_skip)[0]


@pytest.mark.parametrize("prompt", ["", "a cat, 8k", "café 猫", "a (b:1.0)"])
def test_text_plain_prompt_is_left_to_stock(
    embed: Callable[..., dict[str, object]], prompt: str
) -> None:
    expected = prompt.replace("(b:1.0)", "b")
    assert embed(prompt) == {"prompt": expected, "negative_prompt": None}


def test_text_escaped_brackets_are_left_to_stock(embed: Callable[..., dict[str, object]]) -> None:
    assert embed(r"a \(cat\)")["prompt"] == "a (cat)"


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


def test_remember_encoding_encodes_equal_texts_once(pipeline: DiffusionPipeline) -> None:
    cache = TextCache(4)
    remember_encoding(pipeline, cache, ())
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
