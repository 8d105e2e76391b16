"""`Gpu`: one replica with the models it holds; each has a real `Planner` over its requests.

Models on one device take forwards in turn, as engine threads that share a device do. To simulate an
hour of many devices, a forward stands for `quantum` denoising steps of the same rows; a test holds
the error that this makes against single steps.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.simulator.devices import LORA_SHARE, Device, Family, row_cap
from benchmarks.simulator.lora_tiers import Found, LoraTiers
from benchmarks.simulator.traffic import Call
from serve_app.config import EngineConfig
from serve_app.engine.planner import Candidate, Planner, Policy
from serve_app.models.placement import ReplicaView

__all__ = ["Gpu", "Hosted", "Work"]

At = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class Work:
    """One call inside a replica.

    started_s: when its first forward began; -1 before. found: where its LoRAs were; none: it names
    none. release: lets them leave the device.
    """

    call: Call
    done: Callable[["Work", float], None]
    left: int
    started_s: float = -1.0
    found: Found | None = None
    release: Callable[[], None] = lambda: None


class Hosted:
    """A model on a device: its planner, its requests that wait and those between two steps.

    takes_turns: whether calls share forwards only with those of the same LoRAs, as they have to
        where LoRAs are a state of the denoiser and not of a row.
    """

    def __init__(self, family: Family, config: EngineConfig, *, takes_turns: bool = False) -> None:
        cap = row_cap(family, config.max_rows, config.row_growth)
        policy = Policy(
            max_live=config.max_live,
            max_guests=config.max_guests,
            turn_ticks=config.turn_ticks,
            turn_groups=config.turn_groups,
        )
        self.family = family
        self._takes_turns = takes_turns
        self.is_loaded = False
        self.is_leaving = False
        self.last_forward_s = -1.0
        self._planner = Planner(policy, lambda _group: cap)
        self._work: dict[int, Work] = {}
        self._waiting: dict[int, Candidate] = {}
        self._parked: dict[int, Candidate] = {}

    def __len__(self) -> int:
        return len(self._work)

    def row_steps(self) -> int:
        """Rows that the requests still put into forwards."""
        return sum(work.left * work.call.rows for work in self._work.values())

    def add(self, seq: int, work: Work) -> None:
        """Take in a call."""
        self._work[seq] = work
        self._waiting[seq] = Candidate(seq, self._variant(work.call), stake=work.call.stake)

    def forward(self, now_s: float, quantum: int) -> tuple[float, list[Work]]:
        """Run one planned forward; returns its seconds and the calls that it finished."""
        while True:
            plan = self._planner.next(self._parked.values(), self._waiting.values())
            for seq in plan.start:
                del self._waiting[seq]
                call = self._work[seq].call
                self._parked[seq] = Candidate(
                    seq, self._variant(call), group=call.size, rows=call.rows, stake=call.stake
                )
            if plan.batch:
                return self._run(plan.batch, now_s, quantum)

    def _variant(self, call: Call) -> tuple[int, ...] | None:
        return tuple(sorted(call.loras)) if self._takes_turns else None

    def _run(self, batch: tuple[int, ...], now_s: float, quantum: int) -> tuple[float, list[Work]]:
        members = [self._work[seq] for seq in batch]
        steps = min(quantum, *(work.left for work in members))
        seconds = steps * self.family.forward_s(sum(work.call.rows for work in members))
        if any(work.call.loras for work in members):
            seconds *= 1 + LORA_SHARE
        ended = []
        for seq, work in zip(batch, members, strict=True):
            if work.started_s < 0:
                work.started_s = now_s
            work.left -= steps
            if work.left == 0:
                ended.append(work)
                seconds += self.family.decode_s
                del self._work[seq], self._parked[seq]
        return seconds, ended


@dataclass(slots=True)
class Gpu:
    """A replica. `at` is the simulation's clock: it calls a function after so many seconds.

    tiers: of the LoRAs that calls name; none: they are not looked at. takes_turns: see `Hosted`.
    """

    number: int
    device: Device
    config: EngineConfig
    quantum: int
    at: At
    now: Callable[[], float]
    tiers: LoraTiers | None = None
    takes_turns: bool = False
    held: "OrderedDict[int, Hosted]" = field(default_factory=OrderedDict)
    used_bytes: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    ready: set[str] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)
    loads: int = 0
    busy_s: float = 0.0
    _is_running: bool = False
    _is_loading: bool = False
    _pending: list[tuple[int, Family, int, Work]] = field(default_factory=list)

    def submit(self, seq: int, family: Family, work: Work) -> None:
        """Take in a call, loading its LoRAs and its model first if need be."""
        self.calls[str(work.call.model)] += 1
        if self.tiers is None or not work.call.loras:
            self._take(seq, family, work)
            return

        def then(found: Found) -> None:
            work.found = found
            self._take(seq, family, work)

        work.release = self.tiers.fetch(work.call.loras, then)

    def _take(self, seq: int, family: Family, work: Work) -> None:
        model = work.call.model
        hosted = self.held.get(model)
        if hosted is None or hosted.is_leaving:
            self._pending.append((model, family, seq, work))
            self.awaited.add(str(model))
            self._load_next()
            return
        self.held.move_to_end(model)
        hosted.add(seq, work)
        self._run_next()

    def hold(self, model: int, family: Family) -> None:
        """Begin with a model in memory, as a deployment of its own does."""
        self._put(model, family).is_loaded = True
        self.ready.add(str(model))

    def view(self, max_ongoing: int) -> ReplicaView:
        """What a router of the service would know of this replica."""
        return ReplicaView(
            str(self.number),
            self.queued,
            max_ongoing,
            self.calls,
            self.ready,
            self.awaited,
            self.used_bytes / self.device.budget_bytes,
        )

    def row_steps(self) -> int:
        """Rows that the calls inside still put into forwards."""
        return sum(hosted.row_steps() for hosted in self.held.values())

    @property
    def queued(self) -> int:
        """Calls inside, at work or waiting."""
        return self.calls.total()

    def _load_next(self) -> None:
        """Begin the load that waits longest, one at a time, when room can be made."""
        if self._is_loading or not self._pending:
            return
        model, family, _, _ = self._pending[0]
        if not self._make_room(family.weights_bytes):
            return
        hosted = self._put(model, family)
        for entry in [entry for entry in self._pending if entry[0] == model]:
            self._pending.remove(entry)
            hosted.add(entry[2], entry[3])
        self._is_loading = True
        self.loads += 1
        self.at(self.device.seconds_to_load(family), lambda: self._loaded(model, hosted))

    def _put(self, model: int, family: Family) -> Hosted:
        self.used_bytes += family.weights_bytes
        hosted = self.held[model] = Hosted(family, self.config, takes_turns=self.takes_turns)
        return hosted

    def _loaded(self, model: int, hosted: Hosted) -> None:
        hosted.is_loaded, self._is_loading = True, False
        self.awaited.discard(str(model))
        self.ready.add(str(model))
        self._load_next()
        self._run_next()

    def _make_room(self, needed: int) -> bool:
        """Evict the least recently used models without work; False: no room yet.

        Where all are at work, the least recently used one takes no new calls, so that a model
        which is asked for all the time cannot keep another one out for ever.
        """
        for model in [model for model, hosted in self.held.items() if not len(hosted)]:
            if self._fits(needed):
                break
            self.used_bytes -= self.held.pop(model).family.weights_bytes
            self.ready.discard(str(model))
        if self._fits(needed):
            return True
        if not any(hosted.is_leaving for hosted in self.held.values()):
            next(iter(self.held.values())).is_leaving = True
        return False

    def _fits(self, needed: int) -> bool:
        return self.used_bytes + needed <= self.device.budget_bytes

    def _leave(self, name: str) -> None:
        self.calls[name] -= 1
        if not self.calls[name]:
            del self.calls[name]

    def _run_next(self) -> None:
        """Run the forward of the next model with work."""
        if self._is_running:
            return
        ready = [h for h in self.held.values() if h.is_loaded and len(h)]
        if not ready:
            return
        hosted = min(ready, key=lambda h: h.last_forward_s)
        hosted.last_forward_s = self.now()
        seconds, ended = hosted.forward(self.now(), self.quantum)
        self._is_running = True
        self.busy_s += seconds
        self.at(seconds, lambda: self._finished(ended))

    def _finished(self, ended: list[Work]) -> None:
        self._is_running = False
        for work in ended:
            self._leave(str(work.call.model))
            work.release()
            work.done(work, self.now())
        self._load_next()
        self._run_next()
