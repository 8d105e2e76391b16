"""`Workshop`: writes a file, serves it as a catalogue does, and paints with it and with stock."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import AddOn
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.match import check_match
from serve_app.models.weights.files import Refused
from serve_app.models.weights.resolve import resolve
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.compose import Canvas
from serve_app.types import GenerationSpec, Kind, LoraUse
from tests.engine.published.files import Tensors
from tests.engine.published.models import Models
from tests.engine.weaving import Weaver, difference, entry_of, paint_stock

__all__ = ["Case", "Row", "Served", "Workshop"]


_VISIBLE = 0.01  # an add-on does something


@dataclass(frozen=True)
class Served:
    """A file, how it is served, and stock with the same weights; None: nothing to paint.

    said: fields of the entry. add_on: type of the file, which is then none of a model.
    model: the model that an add-on is for. enlarged: what an upscaler makes of (1, 3, H, W).
    asked: what stock is asked otherwise than by the spec.
    """

    file: Path
    stock: DiffusionPipeline | None = None
    said: Mapping[str, object] = field(default_factory=dict)
    add_on: str | None = None
    model: Path | None = None
    enlarged: Callable[[torch.Tensor], torch.Tensor] | None = None
    asked: Mapping[str, object] = field(default_factory=dict)
    spec: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A layout. served: what the entry names. checked: the truth that it is held against."""

    layout: str
    served: str
    make: Callable[["Workshop"], Served]
    checked: str = "stock diffusers with these weights"
    bound: float = 1e-4


@dataclass(frozen=True)
class Row:
    """What became of a case. difference: of any value of a picture, in [0, 1]."""

    layout: str
    found: str
    served: str
    checked: str
    difference: float | None
    refused: str = ""


class Workshop:
    """Works in a folder of its own, while architectures are small."""

    def __init__(self, root: Path) -> None:
        self.models = Models(root / "models")
        (root / "models").mkdir()
        self.root = root
        self._numbers = itertools.count()
        self._with_add_ons: dict[Path, Weaver] = {}
        self._plain: dict[tuple[Path, str], torch.Tensor] = {}
        # By pipeline and spec; with the pipeline, or another one might get its id.
        self._stock: dict[tuple[int, str, str], tuple[DiffusionPipeline, torch.Tensor]] = {}
        self._config = CatalogueConfig(cache_dir=root / "cache")

    def write(self, tensors: Mapping[str, torch.Tensor], **header: str) -> Path:
        """Write a safetensors file."""
        file = self.root / f"file-{next(self._numbers)}.safetensors"
        whole: Tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole, file, header or None)
        return file

    def row(self, case: Case) -> Row:
        """Serve a case, paint, and compare; or tell why it is refused."""
        made = case.make(self)
        found = inspect(made.file, self._config).noun
        try:
            off = self._difference(made)
        except (Refused, Unfit, errors.DreamserveError) as exc:
            reason = exc.public_message if isinstance(exc, errors.AddOnMisfit) else str(exc)
            reason = reason.removeprefix("random: ")  # the entry's id
            return Row(case.layout, found, case.served, "", None, reason)
        return Row(case.layout, found, case.served, case.checked, off)

    def close(self) -> None:
        """Stop the engines."""
        for weaver in self._with_add_ons.values():
            weaver.engine.close()

    def _difference(self, made: Served) -> float:
        return self._add_on(made) if made.add_on is not None else self._model(made)

    def _model(self, made: Served) -> float:
        model = entry_of(made.file, **made.said)
        check_match(model, self._config)
        weaver = Weaver(resolve(model, self._config), [])
        weaver.canvas = _canvas()
        spec = _spec(made)
        try:
            woven = weaver.paint(spec)[0]
        finally:
            weaver.engine.close()
        assert made.stock is not None, "it should have been refused"
        return difference(woven, self._stock_picture(made.stock, spec))

    def _add_on(self, made: Served) -> float:
        assert made.model is not None, "an add-on is for a model"
        values = {"id": "it", "type": made.add_on, "source": made.file, **made.said}
        entry = AddOn.model_validate(values)
        check_match(entry, self._config)
        if made.model not in self._with_add_ons:
            self._with_add_ons[made.model] = Weaver(made.model, [])
        weaver = self._with_add_ons[made.model]
        weaver.known[:] = [entry]
        if made.enlarged is not None:
            return _difference_enlarged(weaver, entry, made.enlarged)
        spec = _spec(made)
        woven = weaver.paint(spec)[0]
        plain = _spec(made, is_plain=True)
        key = (made.model, plain.model_dump_json())
        if key not in self._plain:
            self._plain[key] = weaver.paint(plain)[0]
        assert made.stock is not None, "it should have been refused"
        assert difference(self._plain[key], woven) > _VISIBLE, "it does something"
        return difference(woven, self._stock_picture(made.stock, spec, made.asked))

    def _stock_picture(
        self,
        pipeline: DiffusionPipeline,
        spec: GenerationSpec,
        asked: Mapping[str, object] | None = None,
    ) -> torch.Tensor:
        key = (id(pipeline), spec.model_dump_json(), repr(asked))
        if key not in self._stock:
            self._stock[key] = (pipeline, _stock_picture(pipeline, spec, asked))
        return self._stock[key][1]


def _difference_enlarged(
    weaver: Weaver, entry: AddOn, enlarged: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Compare what an upscaler makes of a picture, in the levels of a PNG."""
    upscaler = weaver.checkpoint.upscalers.get(Named(entry, str(entry.path)))
    assert upscaler is not None, "one is named"
    small = np.asarray(_canvas().init)
    factor = upscaler.network.scale
    made = upscaler.enlarge(small, factor, Event())
    values = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
    truth = enlarged(values)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0)
    return float((torch.from_numpy(made.copy()).float() - truth).abs().max() / 255)


def _spec(made: Served, *, is_plain: bool = False) -> GenerationSpec:
    """Make a spec; one that names the add-on, unless it is to be plain."""
    values: dict[str, object] = {
        "model_id": "random",
        "kind": Kind.TEXT2IMG,
        "prompt": "a red square",
        "height": 64,
        "width": 64,
        "steps": 2,
        "guidance_scale": 4.0,
        "scheduler": "EulerDiscreteScheduler",
        "seed": 7,
    }
    named = {
        "lora": {"loras": (LoraUse(id="it", strength=0.8),)},
        "vae": {"vae": "it"},
        "embedding": {"embeddings": ("it",), "prompt": "a red square of it"},
        None: {},
    }[None if is_plain else made.add_on]
    if is_plain and made.add_on == "embedding":
        named = {"prompt": "a red square of it"}
    return GenerationSpec.model_validate(values | named | dict(made.spec))


def _canvas() -> Canvas:
    random = np.random.default_rng(3)
    init = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 16, 48, 64))
    return Canvas(init, mask, (0, 0, 64, 64))


def _stock_picture(
    pipeline: DiffusionPipeline, spec: GenerationSpec, asked: Mapping[str, object] | None = None
) -> torch.Tensor:
    if spec.kind is Kind.INPAINT:
        name = type(pipeline).__name__.replace("Pipeline", "InpaintPipeline")
        canvas = _canvas()
        pictures = {"image": canvas.init, "mask_image": canvas.mask, "strength": spec.strength}
        return paint_stock(getattr(diffusers, name).from_pipe(pipeline), spec, **pictures)
    if hasattr(pipeline, "unet"):
        return paint_stock(pipeline, spec, **asked or {})
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    with patch(f"{paint_stock.__module__}.stock_scheduler", lambda *_: scheduler):
        return paint_stock(pipeline, spec)
