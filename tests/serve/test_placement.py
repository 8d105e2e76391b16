"""Resource options book what they name on a real node."""

import pytest
import ray

pytestmark = pytest.mark.ray


async def test_replicas_book_their_accelerator_and_their_custom_resource(service):
    free = ray.available_resources()
    assert free["slot"] == 1
    assert free["accelerator_type:L4"] == pytest.approx(0.998)
