"""Fixtures that every test may use."""

import gc

import pytest
from hypothesis import HealthCheck, settings

from serve_app.config import LoggingConfig
from serve_app.telemetry import logging

# The same examples in each run, whatever time each takes: what a run says of a change must hang on
# neither luck nor the machine. For examples that nobody has tried: --hypothesis-profile=new.
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("new"), derandomize=True)
settings.load_profile("same")

pytest_plugins = [
    "tests.hub_server",
    "tests.job_stores",
    "tests.object_stores",
    "tests.postgres_server",
    "tests.s3_server",
]


@pytest.fixture(autouse=True)
def _plain_logs():
    """Structlog's own default prints local variables with each exception, slowly."""
    logging.configure(LoggingConfig(level="DEBUG"))


def pytest_collection_modifyitems(items):
    """Refuse names of tests that hold an address: each process of a run would have others."""
    odd = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if odd:
        raise pytest.UsageError(f"the name of a test holds an address; give it ids: {odd[0]}")


def pytest_collection_finish():
    """Leave the modules out of all later collections of garbage: with torch those take a second."""
    gc.collect()
    gc.freeze()
