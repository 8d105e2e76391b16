"""Everything that the painter can do, on a pretended device beside the CPU.

`python -m tests.rehearsal --write` writes what a step costs there into `docs/device.md`.
"""

import asyncio
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.catalogue import AddOn
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.compose import encode
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.pipelines.samplers.names import SAMPLERS
from serve_app.testing.checkpoints import RandomUNet, write_random_text2img
from serve_app.testing.controlnets import write_random_controlnet
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import (
    ControlNetUse,
    GenerationSpec,
    IpAdapterUse,
    Kind,
    LoraUse,
    PreparedImages,
)
from tests.pretended_device import DEVICE, Ledger, pretended

__all__ = ["FEATURES", "Cost", "Rehearsal", "demo", "images_of", "page", "random", "spec_of"]

_HEAD = """# What a step does on the device

Counted on a pretended device (`tests/pretended_device.py`): its numbers are the CPU's, its rules
those of an accelerator. `python -m tests.rehearsal --write` writes this part; a test holds the
figures down. A *wait* is what the engine's thread has to wait for while the device works off what
it was given: a copy from memory that is not pinned, a copy to the host, a read of a number.
*Copies* are those for which nobody waits. One request alone at 64 px, guidance on; the denoiser
makes most of the operations. Embeddings are not in it: giving a module other weights in place is
beyond what can be pretended."""
_MEASURED = "## In half precision\n"
_TRAINED = Path(__file__).parents[1] / "checkpoints"
_STEPS = 2
_CELL_PX = 16
_COMMON = {"scheduler": "UniPCMultistepScheduler"}
_HEART = LoraUse(id="heart", strength=1.0)
_INKED = LoraUse(id="inked", strength=0.5)
FEATURES: Mapping[str, Mapping[str, object]] = {
    "weights in the prompt": {"prompt": "a (red:1.3) square, [small] BREAK blue"},
    "two samples": {"samples": 2},
    "clip_skip": {"clip_skip": 2},
    "token merging": {"tomesd": True},
    "self_attention": {"self_attention": True},
    "panorama": {"panorama": True, "width": 192},
    "highres_fix": {"highres_fix": True, "width": 128, "height": 128, "steps": 6},
    "upscale": {"upscale": 2},
    "a LoRA": {"loras": (_HEART,)},
    "two LoRAs": {"loras": (_HEART, _INKED)},
    "a VAE": {"vae": "warm"},
    "an IP adapter": {"ip_adapter": IpAdapterUse(id="face", scale=0.5)},
    "a ControlNet": {"controlnets": (ControlNetUse(id="edges", scale=1.0),)},
    "two ControlNets": {
        "controlnets": (ControlNetUse(id="edges", scale=1.0), ControlNetUse(id="depth", scale=0.5))
    },
    "guess mode": {"controlnets": (ControlNetUse(id="edges", scale=1.0),), "guess_mode": True},
    "a ControlNet, inpaint": {
        "controlnets": (ControlNetUse(id="edges", scale=1.0),),
        "kind": Kind.INPAINT,
    },
    "a LoRA and a ControlNet": {
        "loras": (_HEART,),
        "controlnets": (ControlNetUse(id="edges", scale=1.0),),
    },
}


@dataclass(frozen=True)
class Cost:
    """What a request does on the device. Per step: from the difference of two runs.

    difference: the largest to the CPU's picture, in grey levels.
    """

    step_operations: int
    step_copies: int
    step_waits: int
    request_waits: int
    places: str
    difference: int


class Rehearsal:
    """One model on the CPU and on the pretended device."""

    def __init__(self, entry: ModelEntry, add_ons: AddOns | None, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sides = []
        for device in ("cpu", str(DEVICE)):
            config = EngineConfig(device=device, measure_rows=False)
            checkpoint = load_checkpoint(entry, config)
            self._sides.append(WeavePainter(entry, config, checkpoint, *filter(None, [add_ons])))

    def close(self) -> None:
        """Stop both engines."""
        for painter in self._sides:
            painter.close()

    def cost(self, spec: GenerationSpec, images: PreparedImages | None) -> Cost:
        """Paint with two numbers of steps, after a first time that fills what is kept."""
        few, many = spec, spec.model_copy(update={"steps": spec.steps + 1})
        host, device = self._sides
        self._paint(device, few, images)
        if spec.highres_fix:  # whose second pass encodes a picture that depends on the steps
            self._paint(device, many, images)
        found = []
        for one in (few, many):
            self._ledger.clear()
            picture = self._paint(device, one, images)
            found.append(self._ledger.totals())
        expected = self._paint(host, many, images)
        operations, copies, waits = (second - first for first, second in zip(*found, strict=True))
        return Cost(
            operations,
            copies,
            waits,
            found[0][2],
            ", ".join(f"{kind} at {place}" for kind, place in self._ledger.waits),
            int(np.abs(picture - expected).max()),
        )

    def _paint(
        self, painter: WeavePainter, spec: GenerationSpec, images: PreparedImages | None
    ) -> np.ndarray:
        made = asyncio.run(painter.paint(1, spec, images))
        return np.asarray(Image.open(io.BytesIO(made.pictures[0].data))).astype(int)


@contextmanager
def random(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Rehearsal]:
    """A small model of random weights."""
    write_random_text2img(folder, unet=RandomUNet(4, (8, 16), (False, True)))
    entry = ModelEntry(id="random", source=folder, kinds=tuple(Kind), native_size_px=64)
    with pretended(monkeypatch) as ledger:
        rehearsal = Rehearsal(entry, None, ledger)
        yield rehearsal
        rehearsal.close()


@contextmanager
def demo(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Rehearsal]:
    """The demo model with add-ons of each type; those without a trained one are random."""
    unet = UNet2DConditionModel.from_pretrained(_TRAINED / "demo" / "unet")
    write_random_ip_adapter(folder / "face", unet)
    for seed, name in enumerate(("edges", "depth")):
        write_random_controlnet(folder / name, unet, seed, cell_px=_CELL_PX)
    known = {
        name: AddOn(id=name, type=kind, source=source)
        for name, kind, source in (
            ("heart", "lora", _TRAINED / "demo-loras" / "heart.safetensors"),
            ("inked", "lora", _TRAINED / "demo-loras" / "inked.safetensors"),
            ("warm", "vae", _TRAINED / "demo-vae"),
            ("face", "ip_adapter", folder / "face"),
            ("edges", "controlnet", folder / "edges"),
            ("depth", "controlnet", folder / "depth"),
        )
    }
    add_ons = AddOns("demo", lambda add_on_id, _type: known.get(add_on_id))
    entry = ModelEntry(id="demo", source=_TRAINED / "demo", kinds=tuple(Kind), native_size_px=64)
    with pretended(monkeypatch) as ledger:
        rehearsal = Rehearsal(entry, add_ons, ledger)
        yield rehearsal
        rehearsal.close()


def spec_of(**changes: object) -> GenerationSpec:
    """Make a spec from what differs from a plain text2img of 64 x 64."""
    values: dict[str, object] = {
        "model_id": "demo",
        "kind": Kind.TEXT2IMG,
        "prompt": "a red square",
        "negative_prompt": "blurry",
        "height": 64,
        "width": 64,
        "steps": _STEPS,
        "strength": 1.0,
        "seed": 7,
    }
    return GenerationSpec.model_validate(values | _COMMON | changes)


def images_of(spec: GenerationSpec) -> PreparedImages:
    """Make all pictures that a spec may want."""
    random = np.random.default_rng(5)
    init = random.integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8)
    mask = Image.new("L", (spec.width, spec.height), 0)
    mask.paste(255, (8, 8, 40, 40))
    return PreparedImages(
        init=encode(init),
        mask=encode(np.asarray(mask)),
        ip_adapter=encode(init),
        controls=tuple(encode(init) for _ in spec.controlnets),
    )


def page() -> Iterator[str]:
    """Write the lines of `docs/device.md`."""
    yield _HEAD
    for title, model, rows in (
        ("Samplers, with a small random model", random, _samplers()),
        ("Features, with the demo model", demo, FEATURES),
    ):
        yield ""
        yield f"## {title}"
        yield ""
        yield "| | operations per step | copies per step | waits per step | waits per request |"
        yield "|---|---|---|---|---|"
        with (
            pytest.MonkeyPatch.context() as patch,
            tempfile.TemporaryDirectory() as folder,
            model(patch, Path(folder)) as rehearsal,
        ):
            for name, changes in rows.items():
                spec = spec_of(**changes)
                cost = rehearsal.cost(spec, images_of(spec))
                yield (
                    f"| {name} | {cost.step_operations} | {cost.step_copies} | "
                    f"{cost.step_waits} | {cost.request_waits} |"
                )


def _samplers() -> dict[str, dict[str, object]]:
    return {
        f"{name.removesuffix('Scheduler')}, {kind.value}": {"scheduler": name, "kind": kind}
        for name, sampler in SAMPLERS.items()
        if sampler.runs == name
        for kind in Kind
    }


def main() -> None:
    """Print the page, or write it in front of what was measured in other ways."""
    torch.set_num_threads(1)
    counted = "".join(f"{line}\n" for line in page())
    if "--write" not in sys.argv:
        sys.stdout.write(counted)
        return
    file = Path(__file__).parents[1] / "docs" / "device.md"
    _, mark, measured = file.read_text().partition(_MEASURED)
    file.write_text(f"{counted}\n{mark}{measured}")


if __name__ == "__main__":
    main()
