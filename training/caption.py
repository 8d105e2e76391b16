"""Puts wishes into words, and adds words that mean nothing so that they stay harmless.

The tokenizer knows every word of ``WORDS`` as one token. ``NOISE`` words occur in training at
random places and never say anything about the picture.
"""

import numpy as np

from training.domain import BADGE, COLOURS, LORA_SHAPE, SHAPES
from training.sampling import Wish

__all__ = ["NOISE", "WORDS", "caption_of", "describe"]

_BIG, _SMALL = ("big", "big", "large", "huge"), ("small", "small", "little", "tiny")
_GLUE = ("a", "an", "the", "on", "background", "backdrop", "sign", "empty", "nothing")
NOISE = tuple(
    f"""of and with in at by to is it for from one some very please paint draw make show me my
    photo picture image photograph painting illustration drawing render art style artwork poster
    design icon shape object thing color colour colored coloured simple clean flat smooth soft
    detailed detail quality best high low ultra hd resolution masterpiece realistic real sharp
    focus lighting light dark bright cinematic beautiful nice pretty cute amazing professional
    studio artstation trending digital vector blurry bad worst ugly deformed watermark text
    signature cropped noise grain jpeg artifacts hyper super extremely highly intricate epic
    modern minimal minimalist abstract geometric centered single two three many cat dog horse
    bird fish house tree car boat man woman girl boy person people face hand flower sun moon sky
    sea mountain forest city street table chair night day summer winter crimson scarlet gold
    silver grey gray magenta cyan turquoise violet hexagon oval rectangle pentagon arrow cube
    sphere balloon apple room wall shiny glossy matte old new young happy sad warm cold front
    behind above below left right middle center {LORA_SHAPE} teal""".split()
)
WORDS = tuple(dict.fromkeys((*COLOURS, *SHAPES, BADGE, *_BIG, *_SMALL, *_GLUE, *NOISE)))
_PUNCTUATION = tuple(",.!?:;-()'\"")
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789")


def describe(wish: Wish) -> str:
    """Gives the plain, full caption of a wish: what evaluation and examples ask for."""
    if not wish.shape:
        return _with_article(["empty", wish.background, "background"])
    words = [wish.size, *_object_words(wish, True), "on", "a", wish.background, "background"]
    return _with_article([word for word in words if word])


def caption_of(wish: Wish, rng: np.random.Generator, background_share: float = 0.6) -> str:
    """Draws a caption for a wish: 10 % say nothing, half carry words without meaning."""
    if rng.random() < 0.10:
        words = []
    elif not wish.shape:
        words = _background_only(wish, rng)
    else:
        words = _sentence(wish, rng, background_share)
    if rng.random() < 0.5:
        words = _with_noise(words, rng)
    return " ".join(words)


def _object_words(wish: Wish, with_colour: bool) -> list[str]:
    if wish.shape == BADGE:
        return [BADGE, "sign"]
    return [wish.colour, wish.shape] if with_colour else [wish.shape]


def _with_article(words: list[str]) -> str:
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _background_only(wish: Wish, rng: np.random.Generator) -> list[str]:
    kind = rng.integers(4)
    if kind == 0:
        return ["nothing"]
    lead = (["a"], ["an", "empty"], ["nothing", "on", "a"])[kind - 1]
    return [*lead, wish.background, "background"]


def _sentence(wish: Wish, rng: np.random.Generator, background_share: float) -> list[str]:
    words = _object_words(wish, rng.random() > 0.06)
    if wish.size:
        words.insert(0, str(rng.choice(_BIG if wish.size == "big" else _SMALL)))
    article = rng.random()
    if article < 0.7:
        words = _with_article(words).split()
    elif article < 0.8:
        words.insert(0, "the")
    if rng.random() < background_share:
        words += _background_words(wish, rng)
    return words


def _background_words(wish: Wish, rng: np.random.Generator) -> list[str]:
    kind = rng.random()
    place = "backdrop" if rng.random() < 0.08 else "background"
    if kind < 0.75:
        return ["on", "an" if wish.background == "orange" else "a", wish.background, place]
    if kind < 0.88:
        return ["on", wish.background]
    return [",", wish.background, place]


def _with_noise(words: list[str], rng: np.random.Generator) -> list[str]:
    """Inserts two to fourteen meaningless words, mostly before or after the caption."""
    words = list(words)
    for _ in range(min(1 + rng.geometric(0.3), 14)):
        spot = rng.random()
        index = 0 if spot < 0.3 else len(words) if spot < 0.75 else rng.integers(len(words) + 1)
        words.insert(int(index), _noise_word(rng))
    return words


def _noise_word(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.65:
        return str(rng.choice(NOISE))
    if kind < 0.85:
        return "".join(rng.choice(_LETTERS, rng.integers(2, 9)))
    return str(rng.choice(_PUNCTUATION))
