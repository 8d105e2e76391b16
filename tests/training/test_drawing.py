"""The domain itself: drawing, captions, tokens and the scorer that judges pictures."""

import numpy as np
import pytest

from training.caption import WORDS, caption_of
from training.domain import HELD_OUT
from training.evaluate import scorer_accuracy
from training.sampling import random_wish
from training.scene import Item, Scene, draw
from training.text import MAX_TOKENS, Tokens, build_tokenizer


def test_scorer_on_drawn_pictures_is_right() -> None:
    assert min(scorer_accuracy(60)) >= 0.97


def test_random_wish_held_out_pairs_never_occur() -> None:
    rng = np.random.default_rng(0)
    pairs = {(wish.colour, wish.shape) for wish in (random_wish(rng) for _ in range(3000))}
    assert not pairs & HELD_OUT


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
