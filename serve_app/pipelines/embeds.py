"""Text embeddings: the stock ones, remembered, and those of weighted and long prompts.

Long and weighted prompts go through the stock `encode_prompt` too, 75 tokens at a time: a
tokenizer stand-in hands it the tokens of one chunk. So clip_skip, pooled embeddings and second
encoders are diffusers' own, and a short prompt without weights is encoded by it untouched.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import SimpleNamespace

import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase

from serve_app.pipelines.families import accepted
from serve_app.pipelines.prompt import Span, is_plain, parse
from serve_app.types import GenerationSpec

__all__ = ["TextCache", "remember_encoding", "text_arguments"]

_MEAN_RANGE = (0.5, 2.0)  # of the factor that restores the mean


class TextCache:
    """The latest text embeddings by what they were made from. Only for the engine thread."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[Hashable, object] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], object]) -> object:
        """Look up, or make and keep; the oldest go when there are too many."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        value = make()
        self._entries[key] = value
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return value


def remember_encoding(pipeline: DiffusionPipeline, cache: TextCache, variant: Hashable) -> None:
    """Let a request's pipeline look its text embeddings up before it encodes.

    variant: whatever else they depend on, such as LoRAs of the text encoder.
    """
    encode = pipeline.encode_prompt
    signature = accepted(type(pipeline).encode_prompt)

    def encode_prompt(*args: object, **kwargs: object) -> object:
        values = signature.bind(None, *args, **kwargs).arguments
        if any(isinstance(value, torch.Tensor) for value in values.values()):
            return encode(*args, **kwargs)
        key = (variant, repr(sorted(values.items(), key=lambda item: item[0])))
        return cache.get(key, lambda: encode(*args, **kwargs))

    pipeline.__dict__["encode_prompt"] = encode_prompt


def text_arguments(
    pipeline: DiffusionPipeline, spec: GenerationSpec, cache: TextCache, variant: Hashable
) -> Mapping[str, object]:
    """Give a CLIP pipeline its text: as it is, or as embeddings if it is weighted or long."""
    spans, negative = parse(spec.prompt), parse(spec.negative_prompt)
    tokenizer = pipeline.tokenizer or pipeline.tokenizer_2
    chunks = max(len(_chunks(tokenizer, spans)), len(_chunks(tokenizer, negative)))
    if chunks == 1 and is_plain(spans) and is_plain(negative):
        texts = ["".join(span.text for span in side) for side in (spans, negative)]
        return {"prompt": texts[0], "negative_prompt": texts[1] or None}
    key = (variant, spec.prompt, spec.negative_prompt, spec.clip_skip, spec.guidance_scale > 1)
    made = cache.get(key, lambda: _embed(pipeline, spans, negative, spec, chunks))
    assert isinstance(made, Mapping), "embeddings are kept by argument name"
    return made


Chunk = tuple[list[int], list[float]]  # tokens and their weights


def _chunks(tokenizer: PreTrainedTokenizerBase, spans: Sequence[Span]) -> list[Chunk]:
    """Cut the tokens of spans into chunks that fit between start and end token; at least one."""
    size = tokenizer.model_max_length - 2
    ids: list[int] = []
    weights: list[float] = []
    for span in spans:
        tokens = tokenizer(span.text, add_special_tokens=False).input_ids
        ids += tokens
        weights += [span.weight] * len(tokens)
    starts = range(0, max(len(ids), 1), size)
    return [(ids[start : start + size], weights[start : start + size]) for start in starts]


def _embed(
    pipeline: DiffusionPipeline,
    spans: Sequence[Span],
    negative: Sequence[Span],
    spec: GenerationSpec,
    chunks: int,
) -> dict[str, torch.Tensor]:
    """Encode chunk by chunk; embeddings are (1, 77 * chunks, D), pooled ones the first chunk's."""
    tokenizers = {
        name: tokenizer
        for name in ("tokenizer", "tokenizer_2")
        if (tokenizer := getattr(pipeline, name, None)) is not None
    }
    parts: list[tuple[torch.Tensor | None, ...]] = []
    try:
        for index in range(chunks):
            for name, tokenizer in tokenizers.items():
                texts = {"prompt": spans, "negative": negative}
                setattr(pipeline, name, _ChunkTokenizer(tokenizer, texts, index))
            encoded = pipeline.encode_prompt(
                prompt="prompt",
                device=pipeline.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=spec.guidance_scale > 1,
                negative_prompt="negative" if spec.negative_prompt else None,
                clip_skip=spec.clip_skip - 1 or None,
            )
            first = next(iter(tokenizers.values()))
            sides = [_weigh(encoded[0], first, spans, index)]
            sides.append(_weigh(encoded[1], first, negative, index))
            parts.append((*sides, *encoded[2:]))
    finally:
        for name, tokenizer in tokenizers.items():
            setattr(pipeline, name, tokenizer)
    return _collect(parts)


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
    """Stands in for a tokenizer: knows two texts, "prompt" and "negative", one chunk of each."""

    def __init__(
        self, real: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[Span]], index: int
    ) -> None:
        self._real = real
        self._index = index
        self._chunks = {name: _chunks(real, spans) for name, spans in texts.items()}

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def __call__(self, text: str | list[str], **_options: object) -> SimpleNamespace:
        name = text if isinstance(text, str) else text[0]
        chunks = self._chunks.get(name, [])  # without a negative prompt stock asks for ""
        tokens = chunks[self._index][0] if self._index < len(chunks) else []
        real = self._real
        ids = [real.bos_token_id, *tokens, real.eos_token_id]
        padding = real.model_max_length - len(ids)
        return SimpleNamespace(
            input_ids=torch.tensor([ids + [real.pad_token_id] * padding]),
            attention_mask=torch.tensor([[1] * len(ids) + [0] * padding]),
        )


def _weigh(
    embeds: torch.Tensor | None,
    tokenizer: PreTrainedTokenizerBase,
    spans: Sequence[Span],
    index: int,
) -> torch.Tensor | None:
    """Scale the embeddings of a chunk, (1, T, D), by their tokens' weights, keeping the mean.

    Source: A1111 web UI, "original" emphasis. Where the mean is too near zero to be restored, as
    in tiny text encoders, it is left as it is.
    """
    chunks = _chunks(tokenizer, spans)
    if embeds is None or index >= len(chunks) or is_plain(spans):
        return embeds
    factors = torch.ones(embeds.shape[1])
    weights = chunks[index][1]
    factors[1 : 1 + len(weights)] = torch.tensor(weights)  # after the start token
    weighed = embeds * factors.to(embeds)[None, :, None]
    factor = float(embeds.float().mean() / weighed.float().mean())
    low, high = _MEAN_RANGE
    return weighed * factor if low < factor < high else weighed
