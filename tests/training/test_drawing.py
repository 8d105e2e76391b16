"""The domain itself: drawing, captions, tokens and the scorer that judges pictures."""

from dataclasses import replace

import numpy as np
import pytest

from training import effects
from training.caption import WORDS, caption_of, describe
from training.domain import HELD_OUT, SHAPES
from training.evaluate import scorer_accuracy
from training.sampling import Wish, random_wish
from training.scene import Item, Scene, draw
from training.scorer import judge
from training.text import MAX_TOKENS, Tokens, build_tokenizer


def test_scorer_on_drawn_pictures_is_right() -> None:
    assert min(scorer_accuracy(60)) >= 0.97


@pytest.mark.parametrize("background", [pytest.param(n, id=n) for n in ("black", "white", "blue")])
@pytest.mark.parametrize("shape", [pytest.param(name, id=name) for name in SHAPES])
def test_judge_ink_tells_an_outline_from_a_flat_object(shape: str, background: str) -> None:
    flat = Item(shape, "orange", 0.5, 0.5, 0.26)
    inked = replace(flat, style="inked")
    found = [judge(draw(Scene(background, (item,)), 256)).ink for item in (flat, inked)]
    assert found[0] < 0.05
    assert found[1] > effects.INK_SHARE


def test_judge_ink_object_dark_all_over_has_no_outline() -> None:
    picture = draw(Scene("pink", (Item("ring", "black", 0.5, 0.5, 0.3),)), 256)
    assert judge(picture).ink < 0.05


def test_random_wish_held_out_pairs_never_occur() -> None:
    rng = np.random.default_rng(0)
    pairs = {(wish.colour, wish.shape) for wish in (random_wish(rng) for _ in range(3000))}
    assert not pairs & HELD_OUT


def test_describe_wish_for_nothing_asks_for_an_empty_background() -> None:
    assert describe(Wish("", "", "", "blue")) == "an empty blue background"


def test_tokenizer_vocabulary_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    assert all(len(tokenizer(word, add_special_tokens=False).input_ids) == 1 for word in WORDS)


def test_tokens_rows_equal_the_tokenizer() -> None:
    tokenizer, rng = build_tokenizer(), np.random.default_rng(1)
    captions = [caption_of(random_wish(rng), rng) for _ in range(200)]
    expected = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    assert Tokens(tokenizer).rows(captions).equal(expected.input_ids)
    assert expected.input_ids.shape == (200, MAX_TOKENS)


@pytest.mark.parametrize("size_px", [pytest.param(128, id="128"), pytest.param(512, id="512")])
def test_draw_any_size_keeps_the_composition(size_px: int) -> None:
    picture = draw(Scene("white", (Item("square", "red", 0.5, 0.5, 0.25),)), size_px)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 120)
    assert red.mean() == pytest.approx((0.84 * 0.5) ** 2, rel=0.05)
    assert red[size_px // 2, size_px // 2]
