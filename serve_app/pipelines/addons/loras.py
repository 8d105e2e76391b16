"""`Loras`: LoRAs and DoRAs of requests, in the layers of a pipeline's denoiser and text encoders.

A file is judged when it is read, against the layers, so that nothing that does not fit ever gets
into them. A call of the denoiser says for each of its rows which LoRAs act on it, so requests with
other LoRAs and with none run in one forward; texts are encoded for one request at a time.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby
from threading import Lock
from weakref import WeakValueDictionary

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from serve_app import errors
from serve_app.engine.stacking import join_outputs, slice_rows
from serve_app.pipelines.addons.lineage import Lineage, read_header
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lora_file import Pair, Tensors, read_pairs
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_set import NO_LORAS, Adapter, LoraSet
from serve_app.pipelines.addons.lru import Lru
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.families import Family
from serve_app.pipelines.proxy import Run
from serve_app.types import LoraUse

__all__ = ["LORA_ROWS", "Fitted", "Loras", "with_loras"]

LORA_ROWS = "lora_rows"  # argument of the lane: the number of each row's set, (B,) on the CPU
_ENCODERS = ("text_encoder", "text_encoder_2")
_CLIP = (CLIPTextModel, CLIPTextModelWithProjection)

Fitted = dict[str, dict[str, Pair]]  # by component and layer, on the CPU


def with_loras(run: Run, sample: str, loras: LoraSet) -> Run:
    """Mark all rows of a denoiser's calls as a request's.

    sample: name of the argument (B, ...).
    """

    def run_marked(arguments: dict[str, object]) -> object:
        tensor = arguments[sample]
        assert isinstance(tensor, torch.Tensor), "the sample is a tensor"
        return run(arguments | {LORA_ROWS: torch.full((len(tensor),), loras.number)})

    return run_marked


class Loras:
    """`choose` is safe to call from several threads; all else is for the engine thread.

    Args:
        base: the loaded pipeline.
        family: of the pipeline.
        lineage: of the pipeline.
        kept: adapters on the device, by key.
        host: adapters in CPU memory, by key.
        batch_bytes: memory for the matrices of one forward; one that needs more is run in parts.
    """

    def __init__(
        self,
        base: DiffusionPipeline,
        family: Family,
        lineage: Lineage,
        kept: Lru[Adapter],
        host: Lru[Fitted],
        batch_bytes: int,
    ) -> None:
        self._base = base
        parts = {family.denoiser: getattr(base, family.denoiser)}
        parts |= {name: getattr(base, name, None) for name in _ENCODERS}
        self._parts = {
            name: LoraLayers(name, part, batch_bytes)
            for name, part in parts.items()
            if name == family.denoiser or isinstance(part, _CLIP)
        }
        self._denoiser = self._parts[family.denoiser]
        self._shared = family.shared
        self._device = next(parts[family.denoiser].parameters()).device
        self._batch_bytes = batch_bytes
        self._lineage = lineage
        self._lock = Lock()
        self._turns: dict[str, Lock] = {}  # by key: what is being read is not read twice
        self._kept = kept
        self._host = host
        self._names, self._numbers = count(), count(1)
        self._sets: WeakValueDictionary[object, LoraSet] = WeakValueDictionary()
        self._by_number: WeakValueDictionary[int, LoraSet] = WeakValueDictionary({0: NO_LORAS})

    def choose(self, asked: Sequence[LoraUse], named: Mapping[str, Named]) -> LoraSet:
        """Return what a request names as one, reading its files unless they are loaded. Blocks.

        The strengths of one that is named twice add up; one of strength 0 is left out. Where a
        DoRA is, it is the first, since it stretches the rows of the weights as they are then, and
        a second one would change them.

        Raises:
            errors.InvalidRequest: two DoRAs.
            errors.AddOnMisfit: one does not fit the model.
            errors.OutOfMemory: there is no room for one.
        """
        strengths: dict[str, float] = {}
        for use in asked:
            strengths[use.id] = strengths.get(use.id, 0.0) + use.strength
        found = {name: self._get(named[name]) for name in sorted(strengths)}
        chosen = {name: adapter for name, adapter in found.items() if strengths[name]}
        doras = [name for name, adapter in chosen.items() if adapter.is_dora]
        if len(doras) > 1:
            text = f"Only one DoRA can be used at a time: {', '.join(doras)}"
            raise errors.InvalidRequest("lora_model", text)
        if not chosen:
            return NO_LORAS
        pairs = [(adapter, strengths[name]) for name, adapter in chosen.items()]
        uses = tuple(sorted(pairs, key=lambda pair: not pair[0].is_dora))
        return self._joined(uses, named[next(iter(chosen))])

    def reading(self, run: Run, run_plain: Run) -> Run:
        """Apply what the rows of a forward name, and take it out of its arguments.

        run_plain: the same without a compiled graph, which would not see what is added.
        """

        def run_reading(arguments: dict[str, object]) -> object:
            rest = dict(arguments)
            numbers = rest.pop(LORA_ROWS, None)
            if not isinstance(numbers, torch.Tensor) or not numbers.any():
                self._denoiser.apply(())
                return run(rest)
            return self._run(run_plain, rest, numbers.tolist())

        return run_reading

    @contextlib.contextmanager
    def in_text(self, loras: LoraSet) -> Iterator[None]:
        """Apply the LoRAs of a request to the text encoders for the time of a `with`."""
        encoders = [part for part in self._parts.values() if part is not self._denoiser]
        try:
            for part in encoders:
                part.apply((loras,))
            yield
        finally:
            for part in encoders:
                part.apply(())

    def _run(self, run: Run, arguments: dict[str, object], numbers: list[int]) -> object:
        """Run one forward, in halves while its matrices need too much memory."""
        size = math.gcd(*(len(list(same)) for _, same in groupby(numbers)))  # rows of a group
        sets = [self._by_number[number] for number in numbers[::size]]
        if len(sets) > 1 and self._denoiser.num_bytes(sets) > self._batch_bytes:
            middle = len(sets) // 2 * size
            return join_outputs(
                [
                    self._run(run, self._rows(arguments, *ends), numbers[slice(*ends)])
                    for ends in ((0, middle), (middle, len(numbers)))
                ]
            )
        self._denoiser.apply(sets)
        return run(arguments)

    def _rows(self, arguments: Mapping[str, object], start: int, stop: int) -> dict[str, object]:
        return {
            name: value if name in self._shared else slice_rows(value, start, stop)
            for name, value in arguments.items()
        }

    def _joined(self, uses: tuple[tuple[Adapter, float], ...], named: Named) -> LoraSet:
        key = tuple((adapter.name, strength) for adapter, strength in uses)
        with self._lock:
            known = self._sets.get(key)
        if known is not None:
            return known
        with judging(named):
            layers = {name: part.joined(uses) for name, part in self._parts.items()}
        with self._lock:
            made = LoraSet(next(self._numbers), uses, layers)
            self._sets[key] = self._by_number[made.number] = made
        return made

    def _get(self, named: Named) -> Adapter:
        """Return the adapter of a file from the device, CPU memory or disk."""
        with self._lock:
            turn = self._turns.setdefault(named.key, Lock())
        with turn:
            with self._lock:
                adapter, fitted = self._kept.get(named.key), self._host.get(named.key)
            if adapter is None:
                with judging(named):
                    fitted = fitted or self._read(named)
                    adapter = self._placed(fitted)
                with self._lock:
                    self._host.put(named.key, fitted, adapter.num_bytes)
                    self._kept.put(named.key, adapter, adapter.num_bytes)
        with self._lock:
            self._turns.pop(named.key, None)
        return adapter

    def _placed(self, fitted: Fitted) -> Adapter:
        pairs = {
            component: {layer: pair.to(self._device) for layer, pair in own.items()}
            for component, own in fitted.items()
        }
        return Adapter(f"lora_{next(self._names)}", pairs)

    def _read(self, named: Named) -> Fitted:
        header = read_header(named.entry.path)
        self._lineage.check(header)
        pairs = read_pairs(load_file(named.entry.path), header, self._convert)
        if strange := sorted(pairs.keys() - self._parts.keys()):
            raise Unfit(f"layers of a {strange[0]}", f"layers of {' or '.join(self._parts)}")
        return {name: self._parts[name].fitted(own) for name, own in pairs.items()}

    def _convert(self, tensors: Tensors) -> Mapping[str, torch.Tensor]:
        """Map the names of layers by diffusers, as it does for this kind of model."""
        if "text_encoder_2" in self._parts and any(name.startswith("lora_te_") for name in tensors):
            raise Unfit("layers of a model's only text encoder", "layers of one of two")
        options = {"unet_config": self._base.unet.config} if "unet" in self._parts else {}
        converted = self._base.lora_state_dict(dict(tensors), **options)
        named: Tensors = converted[0] if isinstance(converted, tuple) else converted
        return named
