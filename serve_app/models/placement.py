"""Which replica gets a request: `rank` of the Pool's, `rank_by_add_ons` of one model's.

Pure functions over plain data.

Used by the router of every caller (`deployments/router.py`). What a caller knows of the replicas is
a second old, so it counts what it sent lately itself.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["PlacementRules", "ReplicaView", "rank", "rank_by_add_ons"]


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """Calls of one model inside one replica.

    spread_calls: from here on another replica takes the model up too, if it has room.
    max_calls: more are refused.
    """

    spread_calls: int
    max_calls: int


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """What a caller knows of a replica.

    ongoing: calls inside, of all models. calls: those of each model, at work or waiting.
    held: models in memory. loading: those being loaded or queued for it.
    used: share of the memory that holds models, 0 to 1.
    """

    replica_id: str
    ongoing: int
    max_ongoing: int
    calls: Mapping[str, int] = field(default_factory=dict)
    held: Collection[str] = ()
    loading: Collection[str] = ()
    used: float = 0.0


def rank(model_id: str, replicas: Iterable[ReplicaView], rules: PlacementRules) -> list[str]:
    """List the replicas' ids, best first.

    First those that hold the model, then those that load it, as long as they are not busy with it;
    then the others, the one with the fewest loads and calls first; then those that hold or load it
    and are busy with it; last those that are full.
    """
    keyed = [(_key(model_id, replica, rules), replica.replica_id) for replica in replicas]
    return [replica_id for _, replica_id in sorted(keyed)]


def _key(
    model_id: str, replica: ReplicaView, rules: PlacementRules
) -> tuple[int, int, int, float, bytes]:
    calls = replica.calls.get(model_id, 0)
    has_it = model_id in replica.held
    gets_it = not has_it and model_id in replica.loading
    is_full = replica.ongoing >= replica.max_ongoing or calls >= rules.max_calls
    tie = _tie(model_id, replica.replica_id)
    if is_full:
        return 4, calls, replica.ongoing, replica.used, tie
    if has_it or gets_it:
        tier = 3 if calls >= rules.spread_calls else 0 if has_it else 1
        return tier, calls, replica.ongoing, replica.used, tie
    # Rendezvous hashing where all else is equal: callers that know nothing of each other agree.
    return 2, len(replica.loading), replica.ongoing, replica.used, tie


def rank_by_add_ons(
    add_ons: Collection[str], replicas: Collection[ReplicaView], slack_calls: int
) -> list[str]:
    """List the ids of a model's replicas, best first, for a request that names add-ons.

    Each add-on has a home, by rendezvous hashing: callers that know nothing of each other agree on
    the replica that so has it in memory. First come the homes of most of the add-ons, then those
    with the fewest calls; homes with `slack_calls` more than the least busy replica are as good as
    any other; last those that are full.
    """
    if not replicas:
        return []
    homes = Counter(
        max(replicas, key=lambda replica: _tie(name, replica.replica_id)).replica_id
        for name in add_ons
    )
    least = min(replica.ongoing for replica in replicas)

    def key(replica: ReplicaView) -> tuple[bool, int, int, bytes]:
        is_full = replica.ongoing >= replica.max_ongoing
        is_near = replica.ongoing <= least + slack_calls
        wins = homes[replica.replica_id] if is_near else 0
        return is_full, -wins, replica.ongoing, _tie(",".join(add_ons), replica.replica_id)

    return [replica.replica_id for replica in sorted(replicas, key=key)]


def _tie(name: str, replica_id: str) -> bytes:
    return hashlib.blake2b(f"{name} {replica_id}".encode(), digest_size=8).digest()
