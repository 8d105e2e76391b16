"""`TabulatedSampler`: a sampler whose steps are read off diffusers' once, and then one product.

Whatever the method, a step is linear in what it is given: the sample, the prediction, the noise
that it draws, and what it remembers of the steps before. Which factors it has depends on the
schedule alone, never on the picture. So the class of diffusers is run once per schedule on a basis,
tensors of ones and zeros in place of latents, and what comes out are the factors. A request then
joins what it is given and multiplies it by a small matrix, in place of some thirty operations that
differ from sampler to sampler, among them reads of constants for which a device has to be waited
for.
"""

import copy
import inspect
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from cachetools import LRUCache
from diffusers.utils.torch_utils import randn_tensor

from serve_app.pipelines.transfer import to_device

__all__ = ["StepTables", "TabulatedFlowSampler", "TabulatedSampler"]

_MAX_TABLES = 128  # of some 50 small matrices
_MAX_REMEMBERED = 8  # tensors that a sampler keeps from one step to the next
_SAMPLE, _OUTPUT, _MEMORY = 0, 1, 2  # columns of the basis
_TAIL = _MEMORY + _MAX_REMEMBERED  # of two columns that no input has: what is there is noise
_WIDTH = _TAIL + 2


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One call of `step`, and the scaling before it.

    scale: factor of the denoiser's input. weights: of the next sample and of what is remembered
    (rows), for the sample, the prediction, what was remembered and, if any is drawn, the noise
    (columns). noise: number type that is drawn, "model" for the prediction's; none: none is drawn.
    before, after: the schedule's index. is_first: of the steps that one level of noise takes.
    """

    scale: float
    weights: torch.Tensor
    noise: torch.dtype | str | None
    before: int | None
    after: int | None
    is_first: bool
    placed: dict[tuple[torch.device, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def weights_on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Return the weights on a device, where they stay."""
        key = (device, dtype)
        if key not in self.placed:
            self.placed[key] = to_device(self.weights.to(dtype), device)
        return self.placed[key]


class _Table:
    """The steps of one schedule, each read off when it is first taken.

    Args:
        probe: a scheduler with the schedule set, which nothing else uses.
        scale, step: diffusers' own methods of it.
    """

    def __init__(
        self, probe: Any, scale: Callable[..., torch.Tensor] | None, step: Callable[..., Any]
    ) -> None:
        self._probe, self._scale, self._step = probe, scale, step
        self._draws = "generator" in inspect.signature(step).parameters
        self._steps: list[_Step] = []
        self._is_reading = False
        self.mixes: dict[Hashable, tuple[float, float]] = {}

    def at(self, number: int, timestep: torch.Tensor) -> _Step:
        """Return a step by its number; all before it were asked for before, once at least.

        Once a step could not be read, the probe is between two steps, and none is read any more.
        """
        if number == len(self._steps):
            assert not self._is_reading, "the schedule failed before"
            self._is_reading = True
            self._steps.append(self._read(timestep))
            self._is_reading = False
        return self._steps[number]

    def _read(self, timestep: torch.Tensor) -> _Step:
        scale = 1.0
        if self._scale is not None:
            scale = float(self._scale(torch.ones(1, 1, dtype=torch.float64), timestep))
        slots = list(_remembered(self._probe))
        for number, (put, _) in enumerate(slots):
            put(_unit(_MEMORY + number))
        before = getattr(self._probe, "_step_index", None)
        is_first = bool(self._probe.state_in_first_order)
        generator = torch.Generator().manual_seed(0)
        unused = generator.get_state()
        draws = {"generator": generator} if self._draws else {}
        following = self._step(
            _unit(_OUTPUT), timestep, _unit(_SAMPLE), return_dict=False, **draws
        )[0]
        rows = torch.cat([following, *(value for _, value in _remembered(self._probe))]).double()
        width, noise = _MEMORY + len(slots), None
        if not generator.get_state().equal(unused):
            noise, rows = _separated(rows)
            rows = torch.cat([rows[:, :width], rows[:, -1:]], dim=1)
        else:
            rows = rows[:, :width]
        after = getattr(self._probe, "_step_index", None)
        return _Step(scale, rows, noise, before, after, is_first)


class StepTables:
    """The tables of a checkpoint's samplers. For the engine's thread.

    The least recently used leave beyond 128 schedules.
    """

    def __init__(self) -> None:
        self._tables: LRUCache[Hashable, _Table] = LRUCache(_MAX_TABLES)

    def __deepcopy__(self, _memo: object) -> "StepTables":
        return self  # a copied scheduler has the tables of the first

    def get(self, key: Hashable, make: Callable[[], _Table]) -> _Table:
        """Return the table of a schedule, made the first time."""
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = make()
        return table


class TabulatedSampler:
    """Goes before a scheduler class of diffusers among the bases of a class.

    Timesteps stay on the CPU, where pipelines look at them.
    """

    timesteps: torch.Tensor
    _tables: StepTables | None = None
    _options: Hashable = None
    _table: _Table | None = None
    _number = 0
    _is_first: bool | None = None  # none: as the class itself says, which runs no tables then
    _memory: torch.Tensor | None = None  # (what is remembered, elements of the sample)

    def share(self, tables: StepTables, options: Hashable) -> None:
        """Take tables from those of other requests. options: all that the schedule depends on."""
        self._tables, self._options = tables, options

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        """Set a schedule as diffusers does, and begin anew."""
        kwargs.pop("device", None)
        super().set_timesteps(*args, **kwargs)  # type: ignore[misc]
        self._table, self._number, self._memory = None, 0, None

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the denoiser's input, (B, ...)."""
        step = self._begun(timestep)
        return sample if step.scale == 1.0 else sample * step.scale

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """Return the next sample, (B, ...); all of one request's rows take the same steps."""
        assert not return_dict, "stock pipelines ask for tuples"
        step = self._begun(timestep)
        given = [sample.reshape(1, -1), model_output.reshape(1, -1)]
        if self._memory is not None:
            given.append(self._memory)
        if step.noise is not None:
            drawn = model_output.dtype if isinstance(step.noise, str) else step.noise
            noise = randn_tensor(model_output.shape, generator=generator, dtype=drawn)
            given.append(to_device(noise, sample.device).reshape(1, -1))
        dtype = torch.promote_types(model_output.dtype, torch.float32)
        weights = step.weights_on(sample.device, dtype)
        found = weights @ torch.cat([part.to(dtype) for part in given])
        self._memory = found[1:] if len(found) > 1 else None
        self._number += 1
        self._follow(step.after)
        return (found[0].view(sample.shape).to(model_output.dtype),)

    @property
    def state_in_first_order(self) -> bool:
        """Whether the next step is the first, or only, one at its level of noise."""
        if self._is_first is not None:
            return self._is_first
        return bool(getattr(super(), "state_in_first_order", True))

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return samples with the noise of a timestep, (B, ...)."""
        share, level = self._mix("add_noise", timesteps)
        return share * original_samples + level * noise

    def _begun(self, timestep: torch.Tensor) -> _Step:
        if self._table is None:
            self._table = self._find(timestep)
        step = self._table.at(self._number, timestep)
        self._follow(step.before)
        self._is_first = step.is_first
        return step

    def _follow(self, index: int | None) -> None:
        """Move the schedule's index, which diffusers' `add_noise` asks for."""
        if index is not None:
            self._step_index = index

    def _find(self, first: torch.Tensor) -> _Table:
        if self._tables is None:
            return self._new_table()
        begin = getattr(self, "_begin_index", None)
        key = (self._options, tuple(self.timesteps.tolist()), begin, float(first))
        return self._tables.get(key, self._new_table)

    def _new_table(self) -> _Table:
        tables, self._tables = self._tables, None
        probe = copy.deepcopy(self)
        self._tables = tables
        own: Any = super(TabulatedSampler, probe)
        return _Table(probe, getattr(own, "scale_model_input", None), own.step)

    def _mix(self, method: str, timesteps: torch.Tensor) -> tuple[float, float]:
        """Read off the factors of sample and noise, once per schedule and timestep."""
        first = timesteps.flatten()[:1]
        key = (method, float(first), getattr(self, "_step_index", None))
        known = {} if self._table is None else self._table.mixes
        if key not in known:
            names = ("timesteps", "noise") if method == "add_noise" else ("timestep", "noise")
            one, zero = torch.eye(2, dtype=torch.float64)[:, :, None]
            arguments = dict(zip(names, (first.expand(2), zero), strict=True))
            mixed = getattr(super(), method)(one, **arguments)
            known[key] = (float(mixed[0]), float(mixed[1]))
        return known[key]


class TabulatedFlowSampler(TabulatedSampler):
    """The same for classes of flow matching, which add noise by a method of their own."""

    def scale_noise(
        self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Return samples with the noise of a timestep, (B, ...)."""
        share, level = self._mix("scale_noise", timestep)
        return share * sample + level * noise


def _unit(column: int) -> torch.Tensor:
    basis = torch.zeros(1, _WIDTH, dtype=torch.float64)
    basis[0, column] = 1.0
    return basis


def _remembered(probe: object) -> Iterator[tuple[Callable[[torch.Tensor], None], torch.Tensor]]:
    """List the tensors of the basis' shape that a scheduler holds, with what replaces each."""
    for name, value in vars(probe).items():
        if _is_of_basis(value):
            yield partial(setattr, probe, name), value
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if _is_of_basis(item):
                    yield partial(value.__setitem__, index), item


def _is_of_basis(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == (1, _WIDTH)


def _separated(rows: torch.Tensor) -> tuple[torch.dtype | str, torch.Tensor]:
    """Take the noise that was drawn out of rows; its factor becomes the last column.

    Some classes draw it as float32 whatever the prediction is.
    """
    best: tuple[float, torch.dtype | str, torch.Tensor] | None = None
    for dtype, name in ((torch.float64, "model"), (torch.float32, torch.float32)):
        generator = torch.Generator().manual_seed(0)
        noise = randn_tensor((1, _WIDTH), generator=generator, dtype=dtype).double()
        factor = rows[:, _TAIL : _TAIL + 1] / noise[:, _TAIL : _TAIL + 1]
        rest = rows - factor * noise
        error = float(rest[:, -1].abs().max())
        if best is None or error < best[0]:
            best = (error, name, torch.cat([rest[:, :-1], factor], dim=1))
    assert best is not None, "two were tried"
    assert best[0] < 1e-5, "noise of one draw, in a step that is linear"
    return best[1], best[2]
