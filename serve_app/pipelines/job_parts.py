"""What a job brings along besides its spec: `JobAddOns` and `JobPictures`."""

import contextlib
import weakref
from dataclasses import dataclass

from serve_app import errors
from serve_app.pipelines.addons.controlnets import ControlNet
from serve_app.pipelines.addons.ip_adapters import PicturePrompt
from serve_app.pipelines.addons.lookup import AddOns, NamedAddOns
from serve_app.pipelines.addons.lora_set import LoraSet
from serve_app.pipelines.addons.upscalers import Upscaler
from serve_app.pipelines.addons.vaes import Vae
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import open_controls, open_ip_picture
from serve_app.pipelines.control import Control
from serve_app.types import GenerationSpec, PreparedImages

__all__ = ["JobAddOns", "JobPictures", "load", "open_pictures", "prefetch"]


@dataclass(frozen=True, slots=True)
class JobAddOns:
    """What a job adds to the checkpoint, and its spec with the embeddings' tokens in its texts."""

    spec: GenerationSpec
    tokens: tuple[str, ...]
    variant: Variant
    loras: LoraSet
    vae: Vae
    nets: tuple[ControlNet, ...] = ()
    upscaler: Upscaler | None = None


def load(checkpoint: Checkpoint, spec: GenerationSpec, named: NamedAddOns) -> JobAddOns:
    """Load what a job names, unless it is loaded. Blocks; raises like the kinds of add-ons do."""
    spec, tokens = checkpoint.embeddings.apply(spec, named.embeddings)
    variant = checkpoint.variants.of(spec, named)
    loras = checkpoint.loras.choose(spec.loras, named.loras)
    nets = checkpoint.controlnets.get(named.controlnets)
    vae, upscaler = checkpoint.vaes.get(named.vae), checkpoint.upscalers.get(named.upscaler)
    return JobAddOns(spec, tokens, variant, loras, vae, nets, upscaler)


def prefetch(add_ons: AddOns, checkpoint: "weakref.ref[Checkpoint]", spec: GenerationSpec) -> None:
    """Fetch and load; weights that are replaced meanwhile are not kept in memory for it."""
    with contextlib.suppress(errors.DreamserveError):
        named = add_ons.of(spec)
        loaded = checkpoint()
        if loaded is not None:
            with loaded.uses.holding(named.large):
                load(loaded, spec, named)


@dataclass(frozen=True, slots=True)
class JobPictures:
    """What all samples of a job are shown besides the canvas."""

    prompt: PicturePrompt | None = None
    control: Control | None = None


def open_pictures(added: JobAddOns, images: PreparedImages | None) -> JobPictures:
    """Decode and encode them once for all samples. Blocks: run it in a thread.

    Raises:
        errors.InvalidRequest: a panorama with ControlNets.
    """
    return JobPictures(_picture_prompt(added, images), _control(added, images))


def _picture_prompt(added: JobAddOns, images: PreparedImages | None) -> PicturePrompt | None:
    """Encode the picture for the job's IP adapter: once for all samples, off the engine thread."""
    adapter, use = added.variant.ip_adapter, added.spec.ip_adapter
    picture = open_ip_picture(added.spec, images)
    if adapter is None or use is None or picture is None:
        return None
    return adapter.prompt(picture, use.scale)


def _control(added: JobAddOns, images: PreparedImages | None) -> Control | None:
    if not added.nets:
        return None
    if added.spec.panorama:
        text = "panorama and ControlNets cannot be combined"
        raise errors.InvalidRequest("panorama", text)
    return Control.of(added.spec, added.nets, open_controls(added.spec, images))
