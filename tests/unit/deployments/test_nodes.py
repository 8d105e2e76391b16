"""What an operator is told who may not join a cluster."""

import pytest
import ray
from ray.exceptions import AuthenticationError

from deployments import nodes


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance.\nMore"),
        AuthenticationError("Token mismatch"),
        RuntimeError("first\nsecond"),
        Exception("The current node timed out during startup."),
    ],
    ids=["none", "token", "runtime", "bare"],
)
def test_whatever_ray_raises_is_one_line(monkeypatch, error):
    def refuse(**_options):
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConnectionError, match="no Ray cluster at 'x' lets us in") as caught:
        nodes.join("x")
    assert len(str(caught.value).splitlines()) == 1
