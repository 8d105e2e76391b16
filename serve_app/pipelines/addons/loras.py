"""`Loras`: LoRAs and DoRAs of requests, in the layers of a pipeline's denoiser and text encoders.

A file is judged when it is read, against the layers, so that nothing that does not fit ever gets
into them. A call of the denoiser says for each of its rows which LoRAs act on it, so requests with
other LoRAs and with none run in one forward; texts are encoded for one request at a time.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from threading import Lock
from weakref import WeakValueDictionary

import torch
from diffusers import DiffusionPipeline, SD3Transformer2DModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.pipelines.addons.lineage import Lineage, read_header
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lora_file import Tensors, read_pairs
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_plan import RowPlan
from serve_app.pipelines.addons.lora_sd3 import in_diffusers_names
from serve_app.pipelines.addons.lora_set import NO_LORAS, Adapter, LoraSet, summed
from serve_app.pipelines.addons.lora_twin import ROW_PAIRS, RowPairs
from serve_app.pipelines.addons.lru import Lru
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.families import PipelineFamily
from serve_app.pipelines.proxy import Run
from serve_app.types import LoraUse

__all__ = ["LORA_ROWS", "Loras", "with_loras"]

LORA_ROWS = "lora_rows"  # argument of the lane: the number of each row's set, (B,) on the CPU
_ENCODERS = ("text_encoder", "text_encoder_2")
_CLIP = (CLIPTextModel, CLIPTextModelWithProjection)


def with_loras(run: Run, sample: str, loras: LoraSet) -> Run:
    """Mark all rows of a denoiser's calls as a request's.

    sample: name of the argument (B, ...).
    """

    marks = torch.empty(0)

    def run_marked(arguments: dict[str, object]) -> object:
        nonlocal marks
        tensor = arguments[sample]
        assert isinstance(tensor, torch.Tensor), "the sample is a tensor"
        if len(marks) != len(tensor):
            marks = torch.full((len(tensor),), loras.number)
        return run(arguments | {LORA_ROWS: marks})

    return run_marked


class Loras:
    """`choose` is safe to call from several threads; all else is for the engine thread.

    Args:
        base: the loaded pipeline.
        family: of the pipeline.
        lineage: of the pipeline.
        kept: adapters on the device, by key.
        host: adapters in CPU memory that had to leave the device, by key.
        config: of the engine.
    """

    def __init__(
        self,
        base: DiffusionPipeline,
        family: PipelineFamily,
        lineage: Lineage,
        kept: Lru[Adapter],
        host: Lru[Adapter],
        config: EngineConfig,
    ) -> None:
        self._base = base
        parts = {family.denoiser: getattr(base, family.denoiser)}
        parts |= {name: getattr(base, name, None) for name in _ENCODERS}
        self._denoiser = LoraLayers(
            family.denoiser, parts[family.denoiser], merge_bytes=config.lora_batch_bytes
        )
        self._parts = {family.denoiser: self._denoiser} | {
            name: LoraLayers(name, part) for name, part in parts.items() if isinstance(part, _CLIP)
        }
        self._shared = family.shared
        self._is_sd3 = isinstance(parts[family.denoiser], SD3Transformer2DModel)
        self._device = next(parts[family.denoiser].parameters()).device
        self._batch_bytes = config.lora_batch_bytes
        self._readers = ThreadPoolExecutor(config.lora_reads, thread_name_prefix="lora")
        self._lineage = lineage
        self._lock = Lock()
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()  # by key
        self._kept = kept
        self._host = host
        self._plan: RowPlan | None = None  # of the last forward with LoRAs
        self._row_pairs = RowPairs(self._denoiser, config.lora_batch_bytes)
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
        strengths = summed(asked)
        found = self._found({name: named[name] for name in strengths})
        doras = [name for name, adapter in found.items() if adapter.is_dora]
        if len(doras) > 1:
            text = f"Only one DoRA can be used at a time: {', '.join(doras)}"
            raise errors.InvalidRequest("lora_model", text)
        if not found:
            return NO_LORAS
        names = sorted(found, key=lambda name: name not in doras)
        for name in names:
            with judging(named[name]):
                self._check_strength(found[name], strengths[name])
        uses = tuple((found[name], strengths[name]) for name in names)
        with judging(named[names[0]]):
            return self._set_of(uses)

    def reading(self, run: Run, run_plain: Run, runs_compiled: Run | None = None) -> Run:
        """Apply what the rows of a forward name, and take it out of its arguments.

        run_plain: the same without a compiled graph, which does not see what is added to layers.
        runs_compiled: tells of arguments, `ROW_PAIRS` among them, if `run` has a graph for them.
        """

        def run_reading(arguments: dict[str, object]) -> object:
            rest = dict(arguments)
            numbers = rest.pop(LORA_ROWS, None)
            own = numbers.tolist() if isinstance(numbers, torch.Tensor) else []
            sets = self._by_numbers(own)
            if not any(map(self._denoiser.num_changed, sets)):
                self._denoiser.apply(())
                self._row_pairs.clear()
                return run(rest)
            outline = self._row_pairs.outline(sets) if runs_compiled else None
            if runs_compiled and outline and runs_compiled(rest | {ROW_PAIRS: outline}):
                self._denoiser.apply(())
                try:
                    return run(rest | {ROW_PAIRS: self._row_pairs.of(sets)})
                except BaseException:
                    self._row_pairs.clear()  # what it holds of this forward goes with it
                    raise
            self._row_pairs.clear()
            return self._run(run_plain, rest, own)

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
        """Run one forward with the sets of these numbers, a row each."""
        if self._plan is None or self._plan.numbers != numbers:
            self._plan = RowPlan(
                numbers,
                lambda number: self._denoiser.num_changed(self._by_number[number]),
                lambda groups: (
                    self._denoiser.num_bytes(self._by_numbers(groups)) <= self._batch_bytes
                ),
            )

        def run_groups(groups: Sequence[int], own: dict[str, object]) -> object:
            self._denoiser.apply(self._by_numbers(groups))
            try:
                return run(own)
            except BaseException:
                self._denoiser.apply(())  # what the layers hold of this forward goes with it
                raise

        return self._plan.run(run_groups, arguments, self._shared)

    def _by_numbers(self, numbers: Sequence[int]) -> list[LoraSet]:
        return [self._by_number[number] for number in numbers]

    def _set_of(self, uses: tuple[tuple[Adapter, float], ...]) -> LoraSet:
        key = tuple((adapter.name, strength) for adapter, strength in uses)
        with self._lock:
            known = self._sets.get(key)
        if known is not None:
            return known
        gains = {
            component: self._parts[component].gain(part, strength)
            for adapter, strength in uses
            if adapter.is_dora
            for component, part in adapter.parts.items()
            if part.magnitudes
        }
        with self._lock:
            made = self._sets.get(key)
            if made is None:
                made = LoraSet(next(self._numbers), uses, gains)
                self._sets[key] = self._by_number[made.number] = made
        return made

    def _check_strength(self, adapter: Adapter, strength: float) -> None:
        """Raise Unfit when the matrices overflow once the strength is folded in."""
        for part in adapter.parts.values():
            if (
                not part.magnitudes
                and part.largest * abs(strength) > torch.finfo(part.up.dtype).max
            ):
                raise Unfit(f"numbers that overflow at a strength of {strength:g}", "a smaller one")

    def _found(self, named: Mapping[str, Named]) -> dict[str, Adapter]:
        """Return the adapters of files; several that are not there are read side by side."""
        with self._lock:
            lacking = [name for name, one in named.items() if self._kept.get(one.key) is None]
        if len(lacking) < 2:
            return {name: self._get(one) for name, one in named.items()}
        reads = {name: self._readers.submit(self._get, named[name]) for name in lacking}
        wait(reads.values())
        return {
            name: reads[name].result() if name in reads else self._get(one)
            for name, one in named.items()
        }

    def _get(self, named: Named) -> Adapter:
        """Return the adapter of a file from the device, CPU memory or disk."""
        with self._lock:
            adapter = self._kept.get(named.key)
            if adapter is not None:
                return adapter
            turn = self._turns.setdefault(named.key, _Turn())
        with turn.lock:  # what is being read is not read twice
            with self._lock:
                adapter = self._kept.get(named.key)
                on_host = None if adapter else self._host.take(named.key)
            if adapter is None:
                with judging(named):
                    adapter = (on_host or self._read(named)).to(self._device)
                with self._lock:
                    gone = self._kept.put(named.key, adapter, adapter.num_bytes)
                self._keep_on_host(gone)
        return adapter

    def _keep_on_host(self, gone: Sequence[Adapter]) -> None:
        """Copy what has left the device and has room, outside of the lock."""
        for adapter in gone:
            if not self._host.fits(adapter.num_bytes):
                continue
            copied = adapter.to("cpu")
            with self._lock:
                self._host.put(adapter.key, copied, copied.num_bytes)

    def _read(self, named: Named) -> Adapter:
        header = read_header(named.entry.path)
        self._lineage.check(header)
        pairs = read_pairs(load_file(named.entry.path), header, self._convert)
        if strange := sorted(pairs.keys() - self._parts.keys()):
            raise Unfit(f"layers of a {strange[0]}", f"layers of {' or '.join(self._parts)}")
        parts = {name: self._parts[name].packed(own) for name, own in pairs.items() if own}
        return Adapter(named.key, f"lora_{next(self._names)}", parts)

    def _convert(self, tensors: Tensors) -> Mapping[str, torch.Tensor]:
        """Map the names of layers by diffusers, as it does for this kind of model."""
        if "text_encoder_2" in self._parts and any(name.startswith("lora_te_") for name in tensors):
            raise Unfit("layers of a model's only text encoder", "layers of one of two")
        if self._is_sd3:
            return in_diffusers_names(tensors)
        options = {"unet_config": self._base.unet.config} if "unet" in self._parts else {}
        converted = self._base.lora_state_dict(dict(tensors), **options)
        named: Tensors = converted[0] if isinstance(converted, tuple) else converted
        return named


class _Turn:
    """Whose turn it is to read a file; gone when nobody waits for it."""

    def __init__(self) -> None:
        self.lock = Lock()
