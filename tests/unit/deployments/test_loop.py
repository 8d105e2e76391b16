"""Serve runs a plain function in a thread; what replicas hold belongs to their event loop."""

import inspect

import pytest

from deployments.generator import Generator
from deployments.ingress import Ingress
from deployments.janitor import Janitor
from deployments.pool import Pool
from deployments.preprocess import Preprocess
from deployments.safety import Safety
from deployments.upload import Upload

HOSTS = (Generator, Ingress, Janitor, Pool, Preprocess, Safety, Upload)


@pytest.mark.parametrize("host", HOSTS)
def test_whatever_serve_calls_runs_in_the_event_loop(host):
    methods = inspect.getmembers(host, inspect.isfunction)
    called = {name: method for name, method in methods if not name.startswith("_")}
    assert called
    assert {name for name, one in called.items() if not inspect.iscoroutinefunction(one)} == set()
