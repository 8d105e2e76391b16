"""ControlNets of one model: loaded when requests name them, each with a lane of its own.

A ControlNet looks at the noisy latents beside a control picture and says what to add within the
UNet. Source: Zhang et al. 2023, arXiv 2302.05543, equation 2. Its rows depend on no variant and on
no other row, so all requests that use it share its forwards, whatever else they are.

Differently from diffusers the features of the control picture are computed once per request, and
the scales are arguments with rows, so that strengths and guess mode keep nobody apart.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from diffusers import ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import load_file
from torch import nn

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.lane import Lane
from serve_app.pipelines.addons.lineage import Lineage, read_header
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lru import Lru, Uses, num_bytes
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.duplicate import duplicate
from serve_app.pipelines.proxy import Run
from serve_app.pipelines.soundness import check_shapes, settle
from serve_app.pipelines.transfer import beside

__all__ = ["EMBEDDING", "SCALES", "ControlNet", "ControlNets", "net_lane"]

# Arguments of a lane: features of the control picture, (B, C, h, w), and what each of the R outputs
# is multiplied by, (B, R).
EMBEDDING, SCALES = "embedding", "scales"
_PICTURE = "controlnet_cond_embedding"  # the layers that see the control picture
# What the UNet gets has to have the shapes of what it adds it to, and the inputs are the UNet's.
_OF_UNET = (
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "class_embed_type",
)


@dataclass(frozen=True, slots=True, eq=False)
class ControlNet:
    """Loaded weights, and the lane that they run in. key: of the files."""

    module: ControlNetModel
    lane: Lane
    key: str = ""

    @property
    def num_outputs(self) -> int:
        """How many places of the UNet it adds to: those on the way down, and the middle."""
        return len(self.module.controlnet_down_blocks) + 1


class ControlNets:
    """Loads a ControlNet when a request names it and it is not there. From several threads.

    Whoever names one that is there waits for none that is being loaded. Those that leave the device
    stay in CPU memory for a while.

    Args:
        base: the loaded pipeline.
        config: of the engine.
        uses: nets of jobs at work, by key; others leave when `engine.controlnet_bytes` are taken.
        lineage: of the checkpoint.
    """

    def __init__(
        self, base: DiffusionPipeline, config: EngineConfig, uses: Uses, lineage: Lineage
    ) -> None:
        unet = getattr(base, "unet", None)
        self._unet = unet if isinstance(unet, UNet2DConditionModel) else None
        # `get` may not walk through the module, whose layers a LoRA may be wrapping meanwhile.
        if self._unet is not None:
            weight = next(self._unet.parameters())
            self._device, self._dtype = weight.device, weight.dtype
            self._latent_channels = int(base.vae.config.latent_channels)
            self._cell_px = int(base.vae_scale_factor)
        self._is_channels_last = config.channels_last
        self._lineage = lineage
        self._lock = Lock()
        self._loads: dict[str, Lock] = {}
        self._loaded: Lru[ControlNet] = Lru(config.controlnet_bytes, uses)
        self._host: Lru[ControlNetModel] = Lru(config.controlnet_host_bytes, Uses())
        self._ranks = itertools.count(1)

    def get(self, named: Sequence[Named]) -> tuple[ControlNet, ...]:
        """Return the nets of a request, in its order; blocks while one is loaded.

        Raises:
            errors.InvalidRequest: the model has no UNet.
            errors.AddOnMisfit: one does not fit; `errors.OutOfMemory` where there is no room.
        """
        if named and self._unet is None:
            text = "ControlNets are served for models with a UNet only"
            raise errors.InvalidRequest("controlnet_model", text)
        return tuple(self._get(one) for one in named)

    def _get(self, named: Named) -> ControlNet:
        with self._lock:
            if (found := self._loaded.get(named.key)) is not None:
                return found
            load = self._loads.setdefault(named.key, Lock())
        with load:
            with self._lock:
                if (found := self._loaded.get(named.key)) is not None:
                    return found
                on_host = self._host.take(named.key)
            with judging(named):
                module = _on_device(on_host, self._device) if on_host else self._load(named)
            with self._lock:
                lane = net_lane(module, named.entry.id, next(self._ranks))
                net = ControlNet(module, lane, named.key)
                gone = self._loaded.put(named.key, net, num_bytes(module))
                self._loads.pop(named.key, None)
            self._keep_on_host(gone)
            return net

    def _keep_on_host(self, gone: Sequence[ControlNet]) -> None:
        """Copy what has left the device and has room, outside of the lock."""
        for net in gone:
            if not self._host.fits(num_bytes(net.module)):
                continue
            copied = _on_device(net.module, torch.device("cpu"))
            with self._lock:
                self._host.put(net.key, copied, num_bytes(copied))

    def _load(self, named: Named) -> ControlNetModel:
        with judging(named):
            module = self._read(named.entry.path)
            self._check(module.config)
            module.to(device=self._device, dtype=self._dtype)
            settle("the ControlNet", module, self._device)
            if self._is_channels_last:
                module.to(memory_format=torch.channels_last)
        return module

    def _read(self, source: Path) -> ControlNetModel:
        """Read a folder, or a single file, which is taken to be a copy of the model's UNet."""
        for file in [source] if source.is_file() else sorted(source.glob("*.safetensors")):
            self._lineage.check(read_header(file))
        if source.is_dir():
            return _read_folder(source)
        assert self._unet is not None, "refused before"
        return _read_file(source, self._unet, self._latent_channels)

    def _check(self, found: Mapping[str, object]) -> None:
        """Raise Unfit when its outputs or inputs are not those of the UNet."""
        assert self._unet is not None, "refused before"
        wanted = {name: self._unet.config[name] for name in _OF_UNET}
        wanted |= {"in_channels": self._latent_channels, "conditioning_channels": 3}
        for name, value in wanted.items():
            if _plain(found[name]) != _plain(value):
                raise Unfit(f"{name} {_plain(found[name])}", str(_plain(value)))
        levels = found["conditioning_embedding_out_channels"]
        assert isinstance(levels, Sequence), "one number of channels per level"
        if 2 ** (len(levels) - 1) != self._cell_px:
            raise Unfit(f"cells of {2 ** (len(levels) - 1)} pixels", f"{self._cell_px}")


def _on_device(module: ControlNetModel, device: torch.device) -> ControlNetModel:
    """Copy to a device; what is there already stays."""
    return module if module.device == device else duplicate(module, [module], device)


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _read_folder(folder: Path) -> ControlNetModel:
    name = ControlNetModel.load_config(folder).get("_class_name", ControlNetModel.__name__)
    if name != ControlNetModel.__name__:
        raise Unfit(f"a model of the class {errors.echoed(name)}", ControlNetModel.__name__)
    module, info = ControlNetModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys"):
        if info[kind]:
            raise Unfit(f"{kind.replace('_', ' ')}: {info[kind][0]}", "what its config.json says")
    return module


def _read_file(file: Path, unet: UNet2DConditionModel, latent_channels: int) -> ControlNetModel:
    """Read tensors by the names of diffusers, or by those of the first ControlNets (LDM)."""
    config = ControlNetModel.from_unet(unet, load_weights_from_unet=False).config
    module = ControlNetModel.from_config(
        config, in_channels=latent_channels, conditioning_channels=3
    )
    tensors = load_file(file)
    if not any(name.startswith("controlnet_") for name in tensors):
        tensors = convert_controlnet_checkpoint(tensors, dict(module.config))
    check_shapes(tensors, module.state_dict())
    module.load_state_dict(tensors)
    return module


def net_lane(module: ControlNetModel, name: str, rank: int) -> Lane:
    """Make the lane of a ControlNet; its row caps are those of the denoiser, which it is half of.

    rank: among ControlNets; requests call theirs in this order, so that each net runs once for all
        that want it.
    """
    return Lane(f"controlnet {name}", _run(module), urgent=True, rank=rank, caps="denoiser")


def _run(module: ControlNetModel) -> Run:
    pools = bool(module.config.global_pool_conditions)
    bare = copy.copy(module)
    bare.__dict__["_modules"] = dict(module._modules) | {_PICTURE: nn.Identity()}
    changed = {"global_pool_conditions": False, "controlnet_conditioning_channel_order": "rgb"}
    bare.__dict__["_internal_dict"] = FrozenDict(dict(module.config) | changed)

    def run(arguments: dict[str, object]) -> object:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor), "the sample is a tensor"
        rest = beside(sample, arguments)
        scales = rest.pop(SCALES)
        assert isinstance(scales, torch.Tensor), "scales are tensors"
        down, middle = bare(controlnet_cond=rest.pop(EMBEDDING), return_dict=False, **rest)
        return tuple(
            _scaled(output, scales[:, number], pools)
            for number, output in enumerate((*down, middle))
        )

    return run


def _scaled(output: torch.Tensor, scale: torch.Tensor, pools: bool) -> torch.Tensor:
    """Multiply rows; a net that pools says the same for all places."""
    if pools:
        output = output.mean((2, 3), keepdim=True).expand_as(output)
    return output * scale.to(output.dtype)[:, None, None, None]
