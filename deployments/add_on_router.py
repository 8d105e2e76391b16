"""`AddOnRouter`: sends a request that names add-ons to the replica of its model that has them."""

import random

from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from serve_app.config import DeploymentOptions
from serve_app.models.placement import ReplicaView, rank_by_add_ons
from serve_app.pipelines.specs import named_add_ons
from serve_app.types import GenerationSpec

__all__ = ["AddOnRouter", "add_on_router"]


def add_on_router(options: DeploymentOptions) -> RequestRouterConfig | None:
    """Return the configuration of a model's router; none where there is nothing to choose."""
    if options.max_replicas == 1:
        return None
    return RequestRouterConfig(
        request_router_class=AddOnRouter,
        request_router_kwargs={"slack_calls": options.add_on_slack_calls},
    )


class AddOnRouter(RequestRouter):  # type: ignore[misc]  # Ray Serve has no types
    """Routes by the add-ons that a call's spec names; without `FIFOMixin`, as the Pool's."""

    def initialize_state(self, slack_calls: int) -> None:
        """Take the setting; called by Serve with `request_router_kwargs`."""
        self._slack_calls = slack_calls

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank the replicas; Serve takes the first one that has a place."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # when all are full
        specs = (value for value in pending_request.args if isinstance(value, GenerationSpec))
        add_ons = named_add_ons(spec) if (spec := next(specs, None)) else ()
        if not add_ons:  # the less busy of two; Serve asks them
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        await self._ask_the_unknown(candidate_replicas)
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        views = [
            ReplicaView(
                replica_id,
                ongoing=self.replica_queue_len_cache.get(replica.replica_id) or 0,
                max_ongoing=replica.max_ongoing_requests,
            )
            for replica_id, replica in by_id.items()
        ]
        ranked = rank_by_add_ons(add_ons, views, self._slack_calls)
        return [[by_id[replica_id]] for replica_id in ranked]

    async def _ask_the_unknown(self, replicas: list[RunningReplica]) -> None:
        """Ask those whose calls this caller has not heard of for a while; Serve keeps the answers.

        Otherwise all would seem idle to a caller that seldom calls, and one would get everything.
        """
        known = self.replica_queue_len_cache.get
        unknown = [replica for replica in replicas if known(replica.replica_id) is None]
        await self._probe_queue_lens(unknown, 0)
