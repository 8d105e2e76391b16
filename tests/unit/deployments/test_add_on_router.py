"""The router of a model's replicas by itself, over replicas that only say how busy they are."""

from types import SimpleNamespace

import pytest

from deployments.add_on_router import AddOnRouter
from serve_app.types import LoraUse
from tests.builders import spec


class Router(AddOnRouter):
    """Knows the replicas' calls once it has asked; `asked` lists them."""

    def __init__(self, calls):
        self.calls, self.asked, self._lens = calls, [], {}
        self.initialize_state(slack_calls=1)

    @property
    def replica_queue_len_cache(self):
        return self._lens

    async def _probe_queue_lens(self, replicas, backoff_index):
        for replica in replicas:
            self.asked.append(replica.replica_id.unique_id)
            self._lens[replica.replica_id] = self.calls[replica.replica_id.unique_id]


class Id(SimpleNamespace):
    __hash__ = object.__hash__


def replicas(*names):
    return [
        SimpleNamespace(replica_id=Id(unique_id=name), max_ongoing_requests=8) for name in names
    ]


def pending(**changes):
    return SimpleNamespace(args=[1, spec(**changes), None], routing_context=SimpleNamespace())


INK = {"loras": (LoraUse(id="ink", strength=1),)}


async def first(router, known):
    ranked = await router.choose_replicas(known, pending(**INK))
    assert all(len(group) == 1 for group in ranked)
    return ranked[0][0].replica_id.unique_id


async def test_home_that_is_busier_than_the_slack_allows_is_left():
    """Also by a caller that has not heard of the replicas for a while."""
    known = replicas(*"abc")
    home = await first(Router(dict.fromkeys("abc", 3)), known)
    busy = Router(dict.fromkeys("abc", 1) | {home: 3})
    assert await first(busy, known) != home
    assert sorted(busy.asked) == ["a", "b", "c"]
    near = Router(dict.fromkeys("abc", 1) | {home: 2})
    assert await first(near, known) == home


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_calls_without_add_ons_leave_the_choice_of_two_to_serve(count):
    router, known = Router({}), replicas(*"abcde"[:count])
    seen = set()
    for _ in range(100):
        (pair,) = await router.choose_replicas(known, pending())
        assert len({id(replica) for replica in pair}) == min(2, count)
        seen |= {replica.replica_id.unique_id for replica in pair}
    assert len(seen) == count
    assert router.asked == []
