"""Embeddings (textual inversion): loaded into a pipeline when a request names them.

They change the tokenizer and the text encoder, which all requests share. So each embedding gets a
token of its own that no client can guess, and only a request that names it has its trigger word
replaced by that token. A text encoder that a file has no vectors for reads the text without it.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from transformers import PreTrainedModel

from serve_app import errors
from serve_app.pipelines.addons.lineage import Lineage, read_header
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.addons.triggers import replaced
from serve_app.pipelines.families import PipelineFamily
from serve_app.pipelines.soundness import check_tensor
from serve_app.types import GenerationSpec

__all__ = ["Embeddings"]

_FILE_NAMES = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}  # where there are two


class Embeddings:
    """The embeddings of a pipeline, each with its token.

    Args:
        pipeline: whose tokenizers and text encoders are changed in place.
        family: of the pipeline; where more than CLIP reads the text there are no embeddings.
        lineage: of the pipeline.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, family: PipelineFamily, lineage: Lineage
    ) -> None:
        self._pipeline = pipeline
        self._lineage = lineage
        names = _FILE_NAMES if family.has_clip_text else ()
        self._encoders = [name for name in names if getattr(pipeline, name, None) is not None]
        # `apply` may not walk through a module whose layers a LoRA may be wrapping meanwhile.
        self._dtypes = {name: self._encoder(name).dtype for name in self._encoders}
        self._lock = Lock()
        self._mark = secrets.token_hex(8)
        self._tokens: dict[str, str] = {}  # by key
        self._waiting: dict[str, _Waiting] = {}  # by token, until it is loaded
        self._unread: dict[str, tuple[str, ...]] = {}  # tokens without vectors, by encoder

    def apply(
        self, spec: GenerationSpec, named: Mapping[str, Named]
    ) -> tuple[GenerationSpec, tuple[str, ...]]:
        """Replace the triggers of the embeddings that a request names by their tokens; gives both.

        The texts have the triggers (`with_triggers`). Reads files; off the engine thread.

        Raises:
            errors.InvalidRequest: the model takes no embeddings.
            errors.AddOnMisfit: one does not fit the model.
        """
        if spec.embeddings and not self._encoders:
            raise errors.InvalidRequest("embeddings_model", "The model takes no embeddings")
        tokens = {name: self._token(named[name]) for name in spec.embeddings}
        triggers = {name: named[name].entry.trigger or name for name in spec.embeddings}
        texts = {
            "prompt": replaced(spec.prompt, triggers, tokens),
            "negative_prompt": replaced(spec.negative_prompt, triggers, tokens),
        }
        return spec.model_copy(update=texts), tuple(tokens.values())

    def unread(self, tokens: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return which of these tokens each tokenizer is to be spared, by its name."""
        return {
            name.replace("text_encoder", "tokenizer"): tuple(set(tokens) & set(own))
            for name, own in self._unread.items()
        }

    def load(self, tokens: tuple[str, ...]) -> None:
        """Bring embeddings into the text encoders. Only on the engine thread.

        Raises:
            errors.AddOnMisfit: a library refuses one that was found to fit.
            errors.OutOfMemory: there is no room for it; it may be tried again.
        """
        for token in tokens:
            if token not in self._waiting:
                continue
            waiting = self._waiting[token]
            with judging(waiting.named):
                while waiting.vectors:
                    self._load(token, *waiting.vectors[0])
                    waiting.vectors.pop(0)
            del self._waiting[token]

    def _token(self, named: Named) -> str:
        with self._lock:
            if named.key not in self._tokens:
                with judging(named):
                    vectors = self._read(named)
                token = f"<{self._mark}n{len(self._tokens)}>"  # one word: no trigger is inside
                self._waiting[token] = _Waiting(named, list(vectors.items()))
                for name in set(self._encoders) - vectors.keys():
                    self._unread[name] = (*self._unread.get(name, ()), token)
                self._tokens[named.key] = token
            return self._tokens[named.key]

    def _read(self, named: Named) -> dict[str, torch.Tensor]:
        """Read a file's vectors, (number, D), for the text encoders of the model.

        Of two encoders a file may have vectors for one alone, by its name.

        Raises:
            Unfit: there are none, or others.
        """
        self._lineage.check(read_header(named.entry.path))
        tensors = load_file(named.entry.path)
        if len(self._encoders) == 1 and not tensors.keys() & set(_FILE_NAMES.values()):
            if len(tensors) != 1:
                raise Unfit(f"{len(tensors)} tensors", "one tensor")
            return {
                name: self._fitted(name, own)
                for name, own in zip(self._encoders, tensors.values(), strict=True)
            }
        wanted = {_FILE_NAMES[name]: name for name in self._encoders}
        if not tensors or tensors.keys() - wanted.keys():
            widths = (f"{key} of width {self._width(name)}" for key, name in wanted.items())
            raise Unfit(_told(tensors), " and ".join(widths))
        vectors = {
            name: self._fitted(name, tensors[key]) for key, name in wanted.items() if key in tensors
        }
        if len({len(own) for own in vectors.values()}) > 1:
            raise Unfit(_told(tensors), "as many vectors for each text encoder")
        return vectors

    def _fitted(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        width = self._width(name)
        if tensor.ndim not in (1, 2) or 0 in tensor.shape or not tensor.is_floating_point():
            raise Unfit(f"a tensor of the shape {tuple(tensor.shape)}", f"vectors of width {width}")
        # A copy, since the file is mapped and may change in place.
        vectors = tensor.reshape(-1, tensor.shape[-1]).to(self._dtypes[name], copy=True)
        if vectors.shape[1] != width:
            raise Unfit(f"vectors of width {vectors.shape[1]}", f"width {width}")
        check_tensor("its vectors", vectors)
        return vectors

    def _width(self, name: str) -> int:
        return int(self._encoder(name).get_input_embeddings().weight.shape[1])

    def _load(self, token: str, name: str, vectors: torch.Tensor) -> None:
        encoder = self._encoder(name)
        tokenizer = getattr(self._pipeline, name.replace("text_encoder", "tokenizer"))
        # diffusers would have the new rows drawn like the old ones, which takes a second, and then
        # write over them: everybody's next step would wait.
        encoder.resize_token_embeddings(len(tokenizer) + len(vectors), mean_resizing=False)
        self._pipeline.load_textual_inversion(
            vectors, token=token, text_encoder=encoder, tokenizer=tokenizer
        )
        encoder.eval().requires_grad_(False)

    def _encoder(self, name: str) -> PreTrainedModel:
        encoder = getattr(self._pipeline, name)
        assert isinstance(encoder, PreTrainedModel), "CLIP text encoders are of transformers"
        return encoder


@dataclass(slots=True)
class _Waiting:
    """An embedding that is still to be loaded. vectors: by the encoders that lack them."""

    named: Named
    vectors: list[tuple[str, torch.Tensor]]


def _told(tensors: Mapping[str, torch.Tensor]) -> str:
    """Name what a file holds: the first few tensors with their shapes."""
    told = [
        f"{errors.echoed(name)} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]
    ]
    return ", ".join(told) or "no tensors"
