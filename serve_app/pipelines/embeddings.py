"""Embeddings (textual inversion): loaded into a pipeline when a request names them.

They change the tokenizer and the text encoder, which all requests share. So each embedding gets a
token of its own that no client can guess, and only a request that names it has its trigger word
replaced by that token.
"""

import secrets
from collections.abc import Mapping
from threading import Lock

import safetensors
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.pipelines.addons import Named
from serve_app.pipelines.specs import trigger_word
from serve_app.types import GenerationSpec

__all__ = ["Embeddings"]


class Embeddings:
    """The embeddings of a pipeline, each with its token."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        self._lock = Lock()
        self._mark = secrets.token_hex(8)
        self._tokens: dict[str, str] = {}  # by key
        self._read: dict[str, dict[str, torch.Tensor]] = {}  # by token, until it is loaded
        self._bad: dict[str, str] = {}  # why not, by token

    def apply(
        self, spec: GenerationSpec, named: Mapping[str, Named]
    ) -> tuple[GenerationSpec, tuple[str, ...]]:
        """Replace the triggers of the embeddings that a request names by their tokens; gives both.

        The texts have the triggers (`specs.with_triggers`). Reads files; off the engine thread.

        Raises:
            errors.GenerationFailed: a file cannot be read.
        """
        prompt, negative = spec.prompt, spec.negative_prompt
        tokens = []
        for name in spec.embeddings:
            token = self._token(named[name])
            trigger = named[name].entry.trigger or name
            word = trigger_word(trigger)
            prompt, negative = word.sub(token, prompt), word.sub(token, negative)
            tokens.append(token)
        texts = {"prompt": prompt, "negative_prompt": negative}
        return spec.model_copy(update=texts), tuple(tokens)

    def load(self, tokens: tuple[str, ...]) -> None:
        """Bring embeddings into the text encoders. Only on the engine thread.

        Raises:
            errors.GenerationFailed: one does not fit the checkpoint.
        """
        for token in tokens:
            if token in self._read:
                try:
                    _load(self._pipeline, self._read.pop(token), token)
                except Exception as exc:  # whatever diffusers finds wrong with the file
                    self._bad[token] = str(exc)
            if token in self._bad:
                raise errors.GenerationFailed(f"embedding does not fit: {self._bad[token]}")

    def _token(self, named: Named) -> str:
        with self._lock:
            if named.key not in self._tokens:
                token = f"<{self._mark}n{len(self._tokens)}>"  # one word: no trigger is inside
                try:
                    self._read[token] = load_file(named.entry.path)
                except (OSError, safetensors.SafetensorError) as exc:
                    raise errors.GenerationFailed(f"embedding {named.entry.id}: {exc}") from exc
                self._tokens[named.key] = token
            return self._tokens[named.key]


def _load(pipeline: DiffusionPipeline, state: Mapping[str, torch.Tensor], token: str) -> None:
    """Load one file; those for XL have a tensor per text encoder."""
    encoders = {"clip_l": "", "clip_g": "_2"}
    if not set(encoders) <= set(state):
        encoders = {next(iter(state)): ""}
    for name, suffix in encoders.items():
        encoder = getattr(pipeline, f"text_encoder{suffix}")
        tokenizer = getattr(pipeline, f"tokenizer{suffix}")
        vectors = state[name]
        size = len(tokenizer) + (len(vectors) if vectors.ndim > 1 else 1)
        # diffusers would have the new rows drawn like the old ones, which takes a second, and then
        # write over them: everybody's next step would wait.
        encoder.resize_token_embeddings(size, mean_resizing=False)
        pipeline.load_textual_inversion(
            vectors, token=token, text_encoder=encoder, tokenizer=tokenizer
        )
        encoder.eval().requires_grad_(False)
