"""`PoolRouter`: sends each request to the Pool replica that `models.placement` ranks first.

Runs in every process that holds a handle of the Pool. What replicas tell in `record_routing_stats`
arrives through the controller about once in `pool.stats_period_s`; what was sent since then is
remembered here, so that the requests of a burst follow the first one.
"""

import time

from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from serve_app.config import PoolConfig
from serve_app.models.placement import PlacementRules, ReplicaView, rank

__all__ = ["PoolRouter", "router_config"]

# What was sent counts as a call until the statistics have it, about two periods, and as a load for
# longer: on a busy machine they come late, and a second load costs more than a wrong guess.
_CALL_PERIODS = 2.0
_LOAD_PERIODS = 10.0


def router_config(config: PoolConfig) -> RequestRouterConfig:
    """Return the configuration that makes Serve route by this class."""
    return RequestRouterConfig(
        request_router_class=PoolRouter,
        request_router_kwargs={
            "spread_calls": config.spread_calls,
            "max_calls": config.max_calls_per_model,
            "stats_period_s": config.stats_period_s,
        },
        request_routing_stats_period_s=config.stats_period_s,
    )


class PoolRouter(RequestRouter):  # type: ignore[misc]  # Ray Serve has no types
    """Routes by the model id that `GraphClient` gives each call.

    Without Serve's `FIFOMixin`, which may hand the replica that was chosen for one request to
    another one that waits longer, for another model.
    """

    def initialize_state(self, spread_calls: int, max_calls: int, stats_period_s: float) -> None:
        """Take the settings; called by Serve with `request_router_kwargs`."""
        self._rules = PlacementRules(spread_calls, max_calls)
        self._period_s = stats_period_s
        # By request, in order of time: a request that waits for a place is ranked again and again.
        self._sent: dict[str, tuple[float, str, str]] = {}

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank the replicas; Serve takes the first one that has a place."""
        model_id = pending_request.metadata.multiplexed_model_id if pending_request else ""
        if pending_request is None or not model_id:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # when all are full
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        views = [self._view(model_id, replica) for replica in candidate_replicas]
        ranked = rank(model_id, views, self._rules)
        self._remember(pending_request.metadata.internal_request_id, model_id, ranked[0])
        return [[by_id[replica_id]] for replica_id in ranked]

    def _view(self, model_id: str, replica: RunningReplica) -> ReplicaView:
        stats = replica.routing_stats
        replica_id = replica.replica_id.unique_id
        told = stats.get("calls", {}).get(model_id, 0)
        held = stats.get("held", ())
        sent = [(at, model) for at, model, to in self._sent.values() if to == replica_id]
        recent = time.monotonic() - _CALL_PERIODS * self._period_s
        calls = sum(model == model_id and at >= recent for at, model in sent)
        return ReplicaView(
            replica_id=replica_id,
            ongoing=self.replica_queue_len_cache.get(replica.replica_id) or 0,
            max_ongoing=replica.max_ongoing_requests,
            calls={model_id: max(told, calls)},
            held=held,
            loading={*stats.get("loading", ()), *(model for _, model in sent)} - set(held),
            used=stats.get("used", 0.0),
        )

    def _remember(self, request_id: str, model_id: str, replica_id: str) -> None:
        now = time.monotonic()
        self._sent.pop(request_id, None)
        self._sent[request_id] = (now, model_id, replica_id)
        for old in list(self._sent):
            if self._sent[old][0] >= now - _LOAD_PERIODS * self._period_s:
                break
            del self._sent[old]
