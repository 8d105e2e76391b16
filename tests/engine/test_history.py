"""History does not matter: what a painter did before, or does beside, changes no picture.

Random sequences of requests go through one painter with all its caches; each picture is compared
with the same request painted alone by a painter that has done nothing yet.
"""

import asyncio
import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.models import AddOn, AddOnType, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.compose import encode
from serve_app.pipelines.host import HostCopies
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.checkpoints import random_vae
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import GenerationSpec, IpAdapterUse, Kind, LoraUse, PreparedImages
from tests.weight_files import write_lora

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")

NATIVE_PX = 64  # below what the checkpoint was trained at, so that a picture takes milliseconds
TOLERANCE = 2  # grey levels: rounding in company
CPU = EngineConfig(device="cpu", measure_rows=False, turn_ticks=2)
HEART, INKED = LoraUse(id="heart", strength=1.0), LoraUse(id="inked", strength=0.8)
TRAINED = Path(__file__).parents[2] / "checkpoints"
TAIL = "and " * 12  # as long as a chunk of the demo's tokenizer, nearly

CHANGES: dict[str, dict[str, object]] = {
    "plain": {"prompt": "a green star on a red background"},
    "other words": {"prompt": "a blue ring on a yellow background"},
    "weighted": {"prompt": "an (orange:1.2) star on a red background"},
    "weighted, other words": {"prompt": "a red (circle:1.2) on a blue background"},
    "stressed": {"prompt": "a purple square (large) on a yellow background"},
    "long": {"prompt": f"a pink star {TAIL} on a red background"},
    "long, other end": {"prompt": f"a pink star {TAIL} on a blue background"},
    "broken": {"prompt": "a green star BREAK a blue background"},
    "negative": {"prompt": "a green star", "negative_prompt": "a red background"},
    "weighted negative": {"prompt": "a green star", "negative_prompt": "(a blue background:1.3)"},
    "clip_skip": {"prompt": "a (green:1.2) star on a red background", "clip_skip": 2},
    "no guidance": {"prompt": "a (green:1.2) star on a red background", "guidance_scale": 1.0},
    "lora": {"prompt": "a green star", "loras": (HEART,)},
    "lora, weaker": {"prompt": "a green star", "loras": (LoraUse(id="heart", strength=0.4),)},
    "loras": {"prompt": "a (green:1.2) star", "loras": (HEART, INKED)},
    "embedding": {"prompt": "sun on a blue background", "embeddings": ("sun",)},
    "weighted embedding": {"prompt": "(sun:1.2) on a blue background", "embeddings": ("sun",)},
    "negative embedding": {
        "prompt": "a green star",
        "negative_prompt": "(sun:1.1)",
        "embeddings": ("sun",),
    },
    "vae": {"prompt": "a green star on a red background", "vae": "warm"},
    "ip adapter": {"prompt": "a star", "ip_adapter": IpAdapterUse(id="picture", scale=0.8)},
    "token merging": {"prompt": "a yellow star on a red background", "tomesd": True},
    "self attention": {"prompt": "a yellow ring on a red background", "self_attention": True},
    "panorama": {"prompt": "a green star", "width": 96, "panorama": True},
    "highres": {"prompt": "a green star", "width": 96, "height": 96, "highres_fix": True},
    "samples": {"prompt": "a green star", "samples": 2},
    "img2img": {"prompt": "a green star", "kind": Kind.IMG2IMG, "strength": 0.6},
    "img2img, other picture": {"prompt": "a green star", "kind": Kind.IMG2IMG, "strength": 0.6},
    "inpaint": {"prompt": "a green star", "kind": Kind.INPAINT},
    "inpaint, lora and vae": {
        "prompt": "a (green:1.2) star",
        "kind": Kind.INPAINT,
        "loras": (INKED,),
        "vae": "warm",
    },
    "crop": {"prompt": "a green star", "kind": Kind.INPAINT, "width": 128, "height": 128},
    **{
        f"{name} sampler": {"prompt": "a red star", "scheduler": f"{name}{end}"}
        for name, end in (
            ("UniPC", "MultistepScheduler"),
            ("EulerAncestral", "DiscreteScheduler"),
            ("LCM", "Scheduler"),
            ("PNDM", "Scheduler"),
        )
    },
}  # fmt: skip
# Random weights hardly tell words apart.
ACTING = ("plain", "vae", "lora", "ip adapter", "token merging", "self attention", "img2img")
FAILING: dict[str, dict[str, object]] = {
    "unknown lora": {"loras": (LoraUse(id="none", strength=1.0),)},
    "misfit lora": {"loras": (HEART, LoraUse(id="misfit", strength=1.0))},
    "misfit embedding": {"prompt": "a misfit", "embeddings": ("misfit",)},
    "misfit vae": {"vae": "misfit"},
    "no picture": {"kind": Kind.IMG2IMG},
}
SEEDS = {"img2img, other picture": 5}


class House:
    """Makes painters that have done nothing yet, and remembers what each request gives alone."""

    def __init__(
        self, entry: ModelEntry, add_ons: Callable[[], AddOns], specs: dict[str, GenerationSpec]
    ) -> None:
        self.entry = entry
        self._add_ons = add_ons
        self._specs = specs
        self._host = HostCopies(2**30)
        self._alone: dict[str, list[np.ndarray]] = {}

    def painter(self) -> WeavePainter:
        checkpoint = load_checkpoint(self.entry, CPU, self._host, "weights")
        return WeavePainter(self.entry, CPU, checkpoint, self._add_ons())

    async def paint(self, painter: WeavePainter, name: str, number: int) -> list[np.ndarray]:
        spec = self._specs[name]
        made = await painter.paint(number, spec, pictures(name, spec))
        return [
            np.asarray(Image.open(io.BytesIO(picture.data))).astype(int)
            for picture in made.pictures
        ]

    def expected(self, name: str) -> list[np.ndarray]:
        if name not in self._alone:
            painter = self.painter()
            try:
                self._alone[name] = asyncio.run(self.paint(painter, name, 0))
            finally:
                painter.close()
        return self._alone[name]


def pictures(name: str, spec: GenerationSpec) -> PreparedImages | None:
    if name == "no picture":
        return None
    random = np.random.default_rng(SEEDS.get(name, 3))
    shape = (spec.height, spec.width)
    init = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = np.zeros(shape, np.uint8)
    mask[16:40, 8:48] = 255
    return PreparedImages(init=encode(init), mask=encode(mask), ip_adapter=encode(init))


Sources = list[tuple[str, AddOnType, Path]]


def demo_add_ons(_checkpoint: Path, _root: Path) -> Sources:
    return [
        ("heart", "lora", TRAINED / "demo-loras" / "heart.safetensors"),
        ("inked", "lora", TRAINED / "demo-loras" / "inked.safetensors"),
        ("sun", "embedding", TRAINED / "demo-embedding.safetensors"),
        ("warm", "vae", TRAINED / "demo-vae"),
    ]


def random_add_ons(checkpoint: Path, root: Path) -> Sources:
    """Of the LoRAs one has layers of the text encoder; the embedding has two vectors."""
    torch.manual_seed(3)
    for name in ("heart", "inked"):
        write_lora(checkpoint, root / name)
    random_vae().save_pretrained(root / "vae")
    save_file({"emb_params": torch.randn(2, 32)}, root / "sun.safetensors")
    file = "pytorch_lora_weights.safetensors"
    return [
        ("heart", "lora", root / "heart" / file),
        ("inked", "lora", root / "inked" / file),
        ("sun", "embedding", root / "sun.safetensors"),
        ("warm", "vae", root / "vae"),
    ]


# The demo tells words apart; token merging and self-attention guidance act on the other alone.
@pytest.fixture(scope="module", params=["demo", "attention"])
def house(
    request: pytest.FixtureRequest,
    folder: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    make_spec: Callable[..., GenerationSpec],
) -> House:
    name, root = request.param, tmp_path_factory.mktemp("house")
    source = folder(name)
    entry = ModelEntry(id=name, source=source, kinds=tuple(Kind), native_size_px=NATIVE_PX)
    write_random_ip_adapter(root / "picture", load_checkpoint(entry, CPU).base.unet)
    save_file({"misfit": torch.ones(2, 7)}, root / "misfit.safetensors")
    add_ons = demo_add_ons if name == "demo" else random_add_ons
    sources: Sources = [
        *add_ons(source, root),
        ("picture", "ip_adapter", root / "picture"),
        *(("misfit", kind, root / "misfit.safetensors") for kind in ("lora", "vae", "embedding")),
    ]  # fmt: skip
    known = {(id_, kind): AddOn(id=id_, type=kind, source=path) for id_, kind, path in sources}
    specs = {
        name: make_spec(**({"prompt": "a green star"} | change))
        for name, change in (CHANGES | FAILING).items()
    }
    return House(entry, lambda: AddOns(entry.id, lambda id_, kind: known.get((id_, kind))), specs)


Step = tuple[str, bool]  # what is asked for, and whether its client leaves at once
ROUNDS = st.lists(
    st.lists(
        st.tuples(st.sampled_from([*CHANGES, *FAILING]), st.booleans()), min_size=1, max_size=4
    ),
    min_size=2,
    max_size=4,
)


@pytest.mark.slow
def test_requests_alone_give_pictures_of_their_own(house: House) -> None:
    """What the property below rests on: confusing two of them would show."""
    told_apart = CHANGES if house.entry.id == "demo" else ACTING
    for one, other in combinations(told_apart, 2):
        first, second = house.expected(one)[0], house.expected(other)[0]
        if first.shape == second.shape:
            assert np.abs(first - second).max() > 3 * TOLERANCE, (one, other)


async def _live(house: House, painter: WeavePainter, together: list[Step], number: int) -> None:
    """Paint a few requests together and compare each; those whose client leaves are cancelled."""

    async def one(step: Step, place: int) -> None:
        name, leaves = step
        task = asyncio.ensure_future(house.paint(painter, name, 10 * number + place))
        if leaves:
            await asyncio.sleep(0.01 * place)
            task.cancel()
        try:
            made = await task
        except asyncio.CancelledError:
            assert leaves
        except errors.DreamserveError:
            assert name in FAILING
        else:
            assert name not in FAILING
            for picture, expected in zip(made, house.expected(name), strict=True):
                assert np.abs(picture - expected).max() <= TOLERANCE, (name, together)

    ends = await asyncio.gather(
        *(one(step, place) for place, step in enumerate(together)), return_exceptions=True
    )
    for end in ends:
        if end is not None:
            raise end


# To shrink would take minutes; the message says what was painted together.
@pytest.mark.slow
@settings(max_examples=6, phases=[Phase.generate])
@given(rounds=ROUNDS)
def test_history_does_not_matter(house: House, rounds: list[list[Step]]) -> None:
    for name in {name for together in rounds for name, _ in together} & set(CHANGES):
        house.expected(name)
    painter = house.painter()
    try:
        for number, together in enumerate(rounds):
            asyncio.run(_live(house, painter, together, number))
    finally:
        painter.close()
