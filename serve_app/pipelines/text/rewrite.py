"""Prompts in other words: translation (`multi_lingual`) and expansion (`enhance_prompt`).

Both are small transformers models of the operator, read from local folders, run on the CPU before
a job's pictures are begun. Nothing is drawn at random, so a job that is run again paints the same.
"""

import functools
import threading
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from serve_app import errors
from serve_app.types import GenerationSpec

__all__ = ["Rewriter", "rewriter_of"]

_NO_REPEAT = 3  # words in a row that an expansion does not say twice
_MAX_GROWTH = 2  # tokens of a translation by those of the text


@functools.cache
def rewriter_of(translator: Path | None, expander: Path | None, new_tokens: int) -> "Rewriter":
    """Load the models, once per process: all models that share a replica share them."""
    return Rewriter(
        None if translator is None else _Model(AutoModelForSeq2SeqLM, translator),
        None if expander is None else _Model(AutoModelForCausalLM, expander),
        new_tokens,
    )


class _Model:
    """A text model with its tokenizer; one call at a time, tokenizers are not thread-safe."""

    def __init__(
        self, cls: type[AutoModelForCausalLM | AutoModelForSeq2SeqLM], folder: Path
    ) -> None:
        self.tokenizer = _tokenizer(folder)
        self._model: PreTrainedModel = cls.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).eval()
        config = self._model.config
        self.max_tokens = int(getattr(config, "n_positions", 0) or config.max_position_embeddings)
        self._lock = threading.Lock()

    def encode(self, text: str) -> torch.Tensor:
        """Tokens of a text, (1, T)."""
        with self._lock:
            tokens = self.tokenizer(text, return_tensors="pt").input_ids
        assert isinstance(tokens, torch.Tensor), "tensors were asked for"
        return tokens

    def write(
        self, tokens: torch.Tensor, new_tokens: int, no_repeat: int = 0, skip: int = 0
    ) -> str:
        """What the model makes of the tokens, by the likeliest token at each place.

        skip: tokens of the output that are left out.
        """
        with self._lock, torch.inference_mode():
            written = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=new_tokens,
                do_sample=False,
                num_beams=1,
                no_repeat_ngram_size=no_repeat,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            )
            return str(self.tokenizer.decode(written[0, skip:], skip_special_tokens=True))


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Raises:
        ImportError: it is of a kind, such as Marian's, that needs a package which is not here.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as exc:
        reason = " ".join(str(exc).split(".")[0].split())
        text = f"{reason}. For engine.translator: pip install 'dreamserve[translation]'"
        raise ImportError(text) from exc


class Rewriter:
    """Changes the prompt of a job before it is painted. Blocks; any thread."""

    def __init__(self, translator: _Model | None, expander: _Model | None, new_tokens: int) -> None:
        self._translator = translator
        self._expander = expander
        self._new_tokens = new_tokens

    def apply(self, spec: GenerationSpec) -> GenerationSpec:
        """Translate the client's words inside the prompt, then let the whole go on.

        Raises:
            errors.InvalidRequest: there is no translator, or the text is too long for it.
        """
        prompt = spec.prompt
        if spec.foreign:
            prompt = prompt.replace(spec.foreign, self._translate(spec.foreign), 1)
        if spec.expand and self._expander is not None:
            prompt = self._expand(self._expander, prompt)
        return spec.model_copy(update={"prompt": prompt})

    def _translate(self, text: str) -> str:
        if self._translator is None:
            raise errors.InvalidRequest("multi_lingual", "Translation is not served here")
        tokens = self._translator.encode(text)
        length = tokens.shape[1]
        if length > self._translator.max_tokens:
            raise errors.InvalidRequest("multi_lingual", "The prompt is too long to be translated")
        return self._translator.write(tokens, _MAX_GROWTH * length + self._new_tokens)

    def _expand(self, model: _Model, prompt: str) -> str:
        """Append words; a prompt that leaves the model no room stays as it is."""
        tokens = model.encode(prompt)
        room = model.max_tokens - tokens.shape[1]
        if tokens.shape[1] == 0 or room < self._new_tokens:
            return prompt
        added = model.write(tokens, self._new_tokens, _NO_REPEAT, skip=tokens.shape[1])
        return f"{prompt} {' '.join(added.split())}".rstrip()
