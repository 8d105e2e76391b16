"""The tokenizer (every word of the vocabulary is one token) and the small text encoder."""

from functools import cache
from itertools import pairwise

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.caption import WORDS

__all__ = ["MAX_TOKENS", "Tokens", "build_encoder", "build_tokenizer", "encode"]

MAX_TOKENS = 77
_WIDTH = 64
_BEGIN, _END, _PAD, _UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|pad|>", "<|unknown|>"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _split(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Splits a word by byte-pair merges, lowest rank first."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        rank, at = min((ranks.get(pair, 10**9), i) for i, pair in enumerate(pairwise(parts)))
        if rank == 10**9:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def build_tokenizer() -> CLIPTokenizer:
    """Makes a stock CLIP tokenizer whose merges spell every word of the vocabulary.

    A word's merges are appended after all earlier ones, so earlier words keep their token.
    Unknown words fall into letters, other characters into one unknown token.
    """
    tokens = [_BEGIN, _END, _PAD, _UNKNOWN]
    tokens += [letter + end for letter in _CHARACTERS for end in ("", "</w>")]
    ranks: dict[tuple[str, str], int] = {}
    for word in WORDS:
        parts = _split(word, ranks)
        while len(parts) > 1:
            ranks[(parts[0], parts[1])] = len(ranks)
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=list(ranks),
        bos_token=_BEGIN,
        eos_token=_END,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        model_max_length=MAX_TOKENS,
    )


def build_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Makes the untrained text encoder: two layers, so that one can be skipped."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            projection_dim=_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Tokens:
    """Turns captions into padded token rows, with a cache per word (captions repeat words)."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids_of = cache(self._word_ids)

    def _word_ids(self, word: str) -> list[int]:
        return list(self._tokenizer(word, add_special_tokens=False).input_ids)

    def rows(self, captions: list[str]) -> torch.Tensor:
        """Gives (B, 77) int64: begin, words, end, padding; what the tokenizer itself gives."""
        out = torch.full((len(captions), MAX_TOKENS), self._tokenizer.pad_token_id)
        for row, caption in enumerate(captions):
            ids = [index for word in caption.split() for index in self._ids_of(word)]
            ids = ids[: MAX_TOKENS - 2]
            ids = [self._tokenizer.bos_token_id, *ids, self._tokenizer.eos_token_id]
            out[row, : len(ids)] = torch.tensor(ids)
        return out


def encode(encoder: CLIPTextModel, rows: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
    """Encodes token rows to (B, 77, D); rows marked in ``skipped`` (B,) leave out one layer.

    The skipped rows are what the stock pipelines compute for ``clip_skip=1``.
    """
    output = encoder(rows, output_hidden_states=True)
    early = final_norm(encoder)(output.hidden_states[-2])
    return torch.where(skipped[:, None, None], early, output.last_hidden_state)


def final_norm(encoder: CLIPTextModel) -> torch.nn.Module:
    """Finds the last normalisation, which moved between releases of transformers."""
    inner = encoder.text_model if "text_model" in dict(encoder.named_children()) else encoder
    norm: torch.nn.Module = inner.final_layer_norm
    return norm
