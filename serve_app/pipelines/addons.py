"""VAEs and embeddings of the catalogue: loaded with the checkpoint, named by requests.

Textual inversion changes the tokenizer and the text encoder, which all requests share. So each
embedding gets a token of its own that no prompt contains, and only a request that names it has
its trigger word replaced by that token.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.models import AddOn
from serve_app.types import GenerationSpec

__all__ = ["Embeddings", "load_vae"]


def load_vae(source: Path, own: AutoencoderKL) -> AutoencoderKL:
    """Load another VAE, onto the device and in the dtype of the checkpoint's own.

    A single file is taken to have the same architecture.
    """
    if source.is_dir():
        vae = AutoencoderKL.from_pretrained(source, local_files_only=True)
    else:
        vae = AutoencoderKL.from_config(own.config)
        vae.load_state_dict(load_file(source))
    return vae.to(device=own.device, dtype=own.dtype).eval().requires_grad_(False)


class Embeddings:
    """The embeddings loaded into a pipeline, by catalogue id."""

    def __init__(self, pipeline: DiffusionPipeline, add_ons: Sequence[AddOn]) -> None:
        self._tokens: dict[str, tuple[str, str]] = {}
        for number, entry in enumerate(add_ons):
            token = f"<embedding-{number}>"
            _load(pipeline, load_file(entry.path), token)
            self._tokens[entry.id] = (entry.trigger or entry.id, token)

    def apply(self, spec: GenerationSpec) -> GenerationSpec:
        """Replace the triggers of the embeddings that a request names by their tokens.

        An embedding whose trigger is in neither text is put at the end of the prompt.

        Raises:
            errors.InvalidRequest: an embedding that is not in the catalogue.
        """
        prompt, negative = spec.prompt, spec.negative_prompt
        for name in spec.embeddings:
            if name not in self._tokens:
                raise errors.InvalidRequest(
                    "embeddings_model", f"The embedding {name[:96]} is not known"
                )
            trigger, token = self._tokens[name]
            word = re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)
            if not word.search(prompt) and not word.search(negative):
                prompt = f"{prompt} {trigger}".lstrip()
            prompt, negative = word.sub(token, prompt), word.sub(token, negative)
        return spec.model_copy(update={"prompt": prompt, "negative_prompt": negative})


def _load(pipeline: DiffusionPipeline, state: Mapping[str, torch.Tensor], token: str) -> None:
    """Load one file; those for XL have a tensor per text encoder."""
    if "clip_l" in state and "clip_g" in state:
        for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
            pipeline.load_textual_inversion(
                state[name],
                token=token,
                text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
                tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
            )
        return
    pipeline.load_textual_inversion(dict(state), token=token)
