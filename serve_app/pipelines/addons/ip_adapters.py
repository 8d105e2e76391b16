"""IP adapters: a picture as a prompt, beside the text (`ip_adapter_image`).

An adapter makes a few tokens of a picture, and has keys and values for them for each layer that
attends to the text. What such a layer sees in the tokens is added to what it sees in the text,
times a scale. Source: Ye et al. 2023, arXiv 2308.06721, equation 5.

diffusers keeps the scale in the layers and has the UNet make the tokens anew at every step. Here
tokens and scales are arguments of a call, made once, which hooks of the layers add: so requests
with different pictures and scales share forwards. The adapter itself is part of the variant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
)
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from serve_app import errors
from serve_app.models.weights.folder import choose_variant
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lru import Lru, num_bytes
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.proxy import Run
from serve_app.pipelines.soundness import check_module, settle

__all__ = ["IpAdapter", "IpAdapters", "PicturePrompt"]

_TOKENS, _SCALES = "ip_tokens", "ip_scales"  # arguments of the lane, (B, T, D) and (B,)
_NO_PROMPTS: tuple[torch.Tensor, ...] = ()
_SERVED = (ImageProjection, IPAdapterFullImageProjection, IPAdapterPlusImageProjection)


@dataclass(frozen=True, slots=True, eq=False)
class PicturePrompt:
    """What a request asks of its adapter. tokens: (2, T, D), of no picture and of the picture."""

    tokens: torch.Tensor
    scale: float

    def beside(self, run: Run, sample: str) -> Run:
        """Add it to a denoiser's calls: the picture is for the last row, the prompt's."""
        scales = self.tokens.new_full((2,), self.scale)

        def run_prompted(arguments: dict[str, object]) -> object:
            rows = _tensor(arguments[sample]).shape[0]
            own = {_TOKENS: self.tokens[-rows:], _SCALES: scales[-rows:]}
            return run(arguments | own)

        return run_prompted


@dataclass(frozen=True, slots=True, eq=False)
class IpAdapter:
    """Loaded weights. keys, values: a matrix (D of the layer, D) for each layer, in their order."""

    encoder: CLIPVisionModelWithProjection
    processor: CLIPImageProcessor
    projection: nn.Module
    keys: nn.ParameterList
    values: nn.ParameterList

    @property
    def num_bytes(self) -> int:
        """Memory of all its weights."""
        return num_bytes(self.encoder, self.projection, self.keys, self.values)

    @torch.no_grad()
    def prompt(self, picture: Image.Image, scale: float) -> PicturePrompt:
        """Make the tokens of a picture. Blocks; from any thread."""
        pixels = self.processor(picture, return_tensors="pt").pixel_values
        pixels = pixels.to(self.encoder.device, self.encoder.dtype)
        if isinstance(self.projection, ImageProjection):
            seen = self.encoder(pixels).image_embeds
            seen = torch.cat([torch.zeros_like(seen), seen])
        else:
            both = torch.cat([torch.zeros_like(pixels), pixels])
            seen = self.encoder(both, output_hidden_states=True).hidden_states[-2]
        return PicturePrompt(self.projection(seen), scale)


class IpAdapters:
    """The adapters of a denoiser, and which of them its layers heed.

    `get` is safe to call from several threads; all else is for the engine thread.

    Args:
        denoiser: of the checkpoint; only a UNet has layers that IP adapters are made for.
        kept: adapters by key.
    """

    def __init__(self, denoiser: nn.Module, kept: Lru[IpAdapter]) -> None:
        self._unet = denoiser if isinstance(denoiser, UNet2DConditionModel) else None
        self._layers = [] if self._unet is None else _text_layers(self._unet)
        # `get` may not walk through the module, whose layers a LoRA may be wrapping meanwhile.
        weight = next(denoiser.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._lock = Lock()
        self._loaded = kept
        self._hooks: list[RemovableHandle] = []
        self._prompts = _NO_PROMPTS

    def get(self, named: Named | None) -> IpAdapter | None:
        """Return the adapter of a request; blocks while it is loaded.

        Raises:
            errors.InvalidRequest: the denoiser has no layers for it.
            errors.AddOnMisfit: it does not fit; `errors.OutOfMemory` where there is no room.
        """
        if named is None:
            return None
        if self._unet is None or not self._layers:
            text = "The model has no layers that IP adapters act on"
            raise errors.InvalidRequest("ip_adapter_id", text)
        with self._lock:
            adapter = self._loaded.get(named.key)
            if adapter is None:
                with judging(named):
                    adapter = self._read(named.entry.path, self._unet)
                self._loaded.put(named.key, adapter, adapter.num_bytes)
            return adapter

    def _read(self, folder: Path, unet: UNet2DConditionModel) -> IpAdapter:
        file, encoder_folder = _files(folder)
        state = load_file(file)
        if strange := [key for key in state if not key.startswith(("image_proj.", "ip_adapter."))]:
            raise Unfit(f"the tensor {strange[0]}", "tensors of an image_proj and an ip_adapter")
        # The public way to load it would change the UNet, which is at work.
        projection = unet._convert_ip_adapter_image_proj_to_diffusers(
            _below(state, "image_proj."), low_cpu_mem_usage=False
        )
        if not isinstance(projection, _SERVED):
            raise Unfit("an adapter that takes the embedding of a face", "one that takes a picture")
        variant = choose_variant(encoder_folder)
        encoder = CLIPVisionModelWithProjection.from_pretrained(
            encoder_folder, variant=variant, local_files_only=True, use_safetensors=True
        )
        check_module("image_encoder", encoder, encoder_folder, variant)
        _check_widths(projection, encoder, self._layers[0])
        keys, values = _matrices(_below(state, "ip_adapter."), self._layers)
        for module in (encoder, projection, keys, values):
            settle("it", module.to(device=self._device, dtype=self._dtype), self._device)
        size = encoder.config.image_size
        processor = CLIPImageProcessor(size=size, crop_size=size)
        return IpAdapter(encoder, processor, projection, keys, values)

    def apply(self, adapter: IpAdapter | None) -> None:
        """Activate an adapter in the layers, or restore them to how they were made."""
        while self._hooks:
            self._hooks.pop().remove()
        if adapter is not None:
            weights = zip(self._layers, adapter.keys, adapter.values, strict=True)
            self._hooks += [
                layer.register_forward_hook(self._add(key, value)) for layer, key, value in weights
            ]

    def reading(self, run: Run) -> Run:
        """Take tokens and scales out of a forward's arguments before the module gets them."""

        def run_reading(arguments: dict[str, object]) -> object:
            rest = dict(arguments)
            prompts = (rest.pop(name, None) for name in (_TOKENS, _SCALES))
            self._prompts = tuple(_tensor(tensor) for tensor in prompts if tensor is not None)
            return run(rest)

        return run_reading

    def _add(
        self, key: torch.Tensor, value: torch.Tensor
    ) -> Callable[[Attention, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
        def add(
            layer: Attention, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
            """Add what the layer sees in the tokens: (B, T, D), through its own queries."""
            if not self._prompts:  # a call of another variant, timed while this one is on
                return output
            tokens, scales = self._prompts
            query, keys, values = (
                part.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
                for part in (
                    layer.to_q(inputs[0]),
                    functional.linear(tokens, key),
                    functional.linear(tokens, value),
                )
            )
            seen = functional.scaled_dot_product_attention(query, keys, values)
            # The layer's last matrix without its bias, which the output has already.
            last = layer.to_out[0]
            own: torch.Tensor = last(seen.transpose(1, 2).flatten(2)) - last.bias
            return output + scales[:, None, None] * own

        return add


def _matrices(
    state: Mapping[str, torch.Tensor], layers: Sequence[Attention]
) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Read keys and values; the files number the layers of the UNet 1, 3, 5 and so on."""
    kinds = {"k": nn.ParameterList(), "v": nn.ParameterList()}
    for number, layer in enumerate(layers):
        wanted = layer.to_k.weight.shape
        for kind, matrices in kinds.items():
            matrix = state.get(f"{2 * number + 1}.to_{kind}_ip.weight", torch.empty(0))
            if matrix.shape != wanted:
                found = f"a matrix of the shape {tuple(matrix.shape)} for layer {number}"
                raise Unfit(found, f"{tuple(wanted)}")
            matrices.append(nn.Parameter(matrix, requires_grad=False))
    if len(state) != 2 * len(layers):
        raise Unfit(f"matrices for {len(state) / 2:g} layers", f"for {len(layers)}")
    return kinds["k"], kinds["v"]


def _check_widths(
    projection: nn.Module, encoder: CLIPVisionModelWithProjection, layer: Attention
) -> None:
    """Raise Unfit unless the projection takes what the encoder gives and gives what layers take."""
    is_plain = isinstance(projection, ImageProjection)
    given = encoder.config.projection_dim if is_plain else encoder.config.hidden_size
    first = next(part for part in projection.modules() if isinstance(part, nn.Linear))
    if first.in_features != given:
        found = f"an image encoder that gives vectors of width {given}"
        raise Unfit(found, f"width {first.in_features}, which the adapter takes")
    is_plus = isinstance(projection, IPAdapterPlusImageProjection)
    norm = projection.get_submodule("norm_out" if is_plus else "norm")
    assert isinstance(norm, nn.LayerNorm), "the last layer of each form"
    wanted = layer.to_k.in_features
    if norm.normalized_shape != (wanted,):
        raise Unfit(f"tokens of width {norm.normalized_shape[0]}", f"width {wanted}")


def _text_layers(unet: UNet2DConditionModel) -> list[Attention]:
    """List the layers that attend to the text, in the order of diffusers."""
    names = (name.removesuffix(".processor") for name in unet.attn_processors)
    return [unet.get_submodule(name) for name in names if not name.endswith("attn1")]


def _files(folder: Path) -> tuple[Path, Path]:
    """Find the adapter's file and the folder of its image encoder, at any depth."""
    encoders = [file.parent for file in folder.rglob("config.json")]
    if len(encoders) != 1:
        raise Unfit(f"{len(encoders)} image encoders (config.json) in the folder", "one")
    files = [file for file in folder.rglob("*.safetensors") if not file.is_relative_to(encoders[0])]
    if len(files) != 1:
        raise Unfit(f"{len(files)} safetensors files beside the image encoder", "one")
    return files[0], encoders[0]


def _below(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _tensor(value: object) -> torch.Tensor:
    assert isinstance(value, torch.Tensor), "samples, tokens and scales are tensors"
    return value
