"""The end of a chain of calls, with responses that behave as Serve's do when replicas die."""

import pytest
from ray.serve.exceptions import RayServeException

from deployments.stage import last_of
from serve_app import errors


class LostResponse:
    """A call that found no living replica: awaiting and cancelling it both raise."""

    is_cancelled = False

    def __await__(self):
        raise RayServeException("upstream actor died")
        yield

    def cancel(self):
        self.is_cancelled = True
        raise RayServeException("upstream actor died")


async def test_lost_call_whose_cancel_raises_is_a_lost_replica():
    stages = [LostResponse(), LostResponse()]
    with pytest.raises(errors.ReplicaLost):
        await last_of(iter(stages), int)
    assert all(stage.is_cancelled for stage in stages)
