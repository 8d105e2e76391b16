"""Text embeddings, remembered by all that they are made from.

CLIP prompts may be weighted, and longer than the encoder's context: they go through the stock
`encode_prompt` chunk by chunk, for which a tokenizer proxy hands it the tokens of one chunk. So
clip_skip, pooled embeddings and second encoders are diffusers' own, and a short prompt without
weights gets exactly stock's embeddings.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from cachetools import LRUCache
from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase

from serve_app.pipelines.families import accepted
from serve_app.pipelines.text.syntax import Span, parse, sections
from serve_app.types import GenerationSpec

__all__ = ["AS_TRAINED", "TextCache", "TextState", "remember_encoding", "text_arguments"]

_MEAN_RANGE = (0.5, 2.0)  # of the factor that restores the mean
_PROMPT, _NEGATIVE = "prompt", "negative"  # the texts that a chunk's tokenizer knows
_LATER_VECTOR = re.compile(r"<.+>_\d+")  # the second and later tokens of an embedding, in diffusers
_ENCODERS = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}


class TextCache:
    """The latest text embeddings by what they were made from. Only for the engine thread."""

    def __init__(self, max_entries: int) -> None:
        self._entries: LRUCache[Hashable, object] = LRUCache(max_entries)

    def get(self, key: Hashable, make: Callable[[], object]) -> object:
        """Look up, or make and keep; the least recently used go when there are too many."""
        if key in self._entries:
            return self._entries[key]
        value = make()
        if self._entries.maxsize:
            self._entries[key] = value
        return value


@dataclass(frozen=True, slots=True)
class TextState:
    """What text embeddings depend on beside the texts: LoRAs of the text encoders.

    key: tells it from all others. entered: brings the encoders there, for the time of a `with`.
    """

    key: Hashable
    entered: Callable[[], AbstractContextManager[None]]


AS_TRAINED = TextState(None, nullcontext)


def remember_encoding(pipeline: DiffusionPipeline, cache: TextCache, state: TextState) -> None:
    """Make a request's pipeline look up its text embeddings before it encodes.

    For families whose prompts stock encodes as they are: the texts in the call are the key, so
    nothing may stand in for the tokenizers.
    """
    encode = pipeline.encode_prompt
    signature = accepted(type(pipeline).encode_prompt)

    def encode_prompt(*args: object, **kwargs: object) -> object:
        values = signature.bind(None, *args, **kwargs).arguments
        if any(isinstance(value, torch.Tensor) for value in values.values()):
            return encode(*args, **kwargs)
        key = (state.key, repr(sorted(values.items(), key=lambda item: item[0])))

        def make() -> object:
            with state.entered():
                return encode(*args, **kwargs)

        return cache.get(key, make)

    pipeline.__dict__["encode_prompt"] = encode_prompt


def text_arguments(
    pipeline: DiffusionPipeline,
    spec: GenerationSpec,
    cache: TextCache,
    state: TextState,
    unread: Mapping[str, Sequence[str]] | None = None,
) -> Mapping[str, object]:
    """Encode the texts of a CLIP pipeline, or look them up; gives its embedding arguments.

    Embeddings are (1, T * chunks, D), pooled ones (1, D) of the first chunk.

    unread: words that a tokenizer's texts are to be without, by its name; each text decides them.
    """
    key = (state.key, spec.prompt, spec.negative_prompt, spec.clip_skip, spec.guidance_scale > 1)

    def make() -> object:
        with state.entered():
            return _embed(pipeline, spec, unread or {})

    made = cache.get(key, make)
    assert isinstance(made, Mapping), "embeddings are kept by argument name"
    return made


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What an encoder reads at once, without start and end token. weights: one a token."""

    ids: Sequence[int] = ()
    weights: Sequence[float] = ()


_EMPTY = _Chunk()


def _embed(
    pipeline: DiffusionPipeline, spec: GenerationSpec, unread: Mapping[str, Sequence[str]]
) -> dict[str, torch.Tensor]:
    """Encode chunk by chunk. The shorter text is filled up with empty chunks."""
    real = {
        name: tokenizer
        for name in _ENCODERS
        if (tokenizer := getattr(pipeline, name, None)) is not None
    }
    widths = [getattr(pipeline, _ENCODERS[name]).config.hidden_size for name in real]
    texts = {
        _PROMPT: sections(parse(spec.prompt)),
        _NEGATIVE: sections(parse(spec.negative_prompt)),
    }
    cut = {
        name: {
            side: _chunks(pipeline, tokenizer, _without(text, unread.get(name, ())))
            for side, text in texts.items()
        }
        for name, tokenizer in real.items()
    }
    count = max(len(chunks) for sides in cut.values() for chunks in sides.values())
    parts: list[tuple[torch.Tensor | None, ...]] = []
    try:
        for index in range(count):
            at = {name: {side: _at(cut[name][side], index) for side in texts} for name in real}
            for name, tokenizer in real.items():
                setattr(pipeline, name, _ChunkTokenizer(tokenizer, at[name]))
            encoded = pipeline.encode_prompt(
                prompt=_PROMPT,
                device=pipeline.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=spec.guidance_scale > 1,
                negative_prompt=_NEGATIVE if spec.negative_prompt else None,
                clip_skip=spec.clip_skip - 1 or None,  # diffusers counts the layers left out
            )
            sides = (
                _weigh(embeds, [at[name][side] for name in real], widths)
                for side, embeds in zip(texts, encoded[:2], strict=True)
            )
            parts.append((*sides, *encoded[2:]))
    finally:
        for name, tokenizer in real.items():
            setattr(pipeline, name, tokenizer)
    return _collect(parts)


def _without(text: Sequence[Sequence[Span]], words: Sequence[str]) -> Sequence[Sequence[Span]]:
    """Leave words out; tokenizers make one of two blanks."""
    for word in words:
        text = [
            [Span(span.text.replace(word, ""), span.weight) for span in section] for section in text
        ]
    return text


def _chunks(
    pipeline: DiffusionPipeline, tokenizer: PreTrainedTokenizerBase, text: Sequence[Sequence[Span]]
) -> list[_Chunk]:
    """Cut each section into chunks that fit between start and end token; at least one.

    The token of an embedding stands for as many tokens as the embedding has vectors, which stay
    in one chunk, as in the A1111 web UI.
    """
    size = tokenizer.model_max_length - 2
    chunks: list[_Chunk] = []
    for section in text:
        ids: list[int] = []
        weights: list[float] = []
        starts = [0]
        for span in section:
            words = pipeline.maybe_convert_prompt(span.text, tokenizer)
            tokens = tokenizer(words, add_special_tokens=False).input_ids
            for word in _whole(tokenizer, tokens, size):
                if len(ids) + len(word) - starts[-1] > size:
                    starts.append(len(ids))
                ids += word
                weights += [span.weight] * len(word)
        ends = [*starts[1:], len(ids)]
        chunks += [
            _Chunk(ids[start:end], weights[start:end])
            for start, end in zip(starts, ends, strict=True)
        ]
    return chunks


def _whole(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], size: int) -> list[list[int]]:
    """Group tokens that are not to be parted: those of one embedding, `size` at most."""
    words: list[list[int]] = []
    for number, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if words and len(words[-1]) < size and _LATER_VECTOR.fullmatch(token):
            words[-1].append(number)
        else:
            words.append([number])
    return words


def _at(chunks: Sequence[_Chunk], index: int) -> _Chunk:
    return chunks[index] if index < len(chunks) else _EMPTY


def _collect(parts: Sequence[tuple[torch.Tensor | None, ...]]) -> dict[str, torch.Tensor]:
    names = ("prompt_embeds", "negative_prompt_embeds")
    made = {
        name: torch.cat([side for side in sides if side is not None], dim=1)
        for name, sides in zip(names, zip(*(part[:2] for part in parts), strict=True), strict=True)
        if sides[0] is not None
    }
    names = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    pooled = zip(names, parts[0][2:], strict=False)  # Stable Diffusion 1 and 2 have none
    return made | {name: value for name, value in pooled if value is not None}


class _ChunkTokenizer:
    """Stands in for a tokenizer: knows two texts, each of one chunk; any other text is empty."""

    def __init__(self, real: PreTrainedTokenizerBase, chunks: Mapping[str, _Chunk]) -> None:
        self._real = real
        self._chunks = chunks

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def tokenize(self, _text: str) -> list[str]:
        """Hide the tokens: embeddings were looked for when the text was cut."""
        return []

    def __call__(self, text: str | list[str], **_options: object) -> SimpleNamespace:
        name = text if isinstance(text, str) else text[0]
        # Without a negative prompt stock asks for "".
        real, chunk = self._real, self._chunks.get(name, _EMPTY)
        ids = [real.bos_token_id, *chunk.ids, real.eos_token_id]
        padding = real.model_max_length - len(ids)
        return SimpleNamespace(
            input_ids=torch.tensor([ids + [real.pad_token_id] * padding]),
            attention_mask=torch.tensor([[1] * len(ids) + [0] * padding]),
        )


def _weigh(
    embeds: torch.Tensor | None, chunks: Sequence[_Chunk], widths: Sequence[int]
) -> torch.Tensor | None:
    """Weigh what each encoder made of its chunk; embeds: (1, T, D), the encoders' side by side."""
    if embeds is None:
        return None
    parts = zip(torch.split(embeds, list(widths), dim=-1), chunks, strict=True)
    return torch.cat([_emphasise(part, chunk.weights) for part, chunk in parts], dim=-1)


def _emphasise(embeds: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Scale the embeddings of a chunk, (1, T, D), by its tokens' weights, keeping the mean.

    Source: A1111 web UI, "original" emphasis. Where the mean is too near zero to be restored, as
    in tiny text encoders, it is left as it is.
    """
    if all(weight == 1 for weight in weights):
        return embeds
    factors = torch.ones(embeds.shape[1])
    factors[1 : 1 + len(weights)] = torch.tensor(weights)  # after the start token
    weighed = embeds * factors.to(embeds)[None, :, None]
    factor = float(embeds.float().mean() / weighed.float().mean())
    low, high = _MEAN_RANGE
    return weighed * factor if low < factor < high else weighed
