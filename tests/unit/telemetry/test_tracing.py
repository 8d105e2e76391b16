"""Traces off cost nothing, on reach a collector; what a span says and what it does not."""

import asyncio
import contextlib
import subprocess
import sys
import time

import pytest
import structlog

from serve_app import errors
from serve_app.cli import preflight
from serve_app.config import AppConfig, LoggingConfig
from serve_app.telemetry import tracing
from tests.otlp_receiver import OtlpReceiver
from tests.spans import CALLER, spans

__all__ = ["spans"]

TRACE = CALLER.split("-")[1]
PROGRAM = """
import sys, structlog
from serve_app.config import LoggingConfig
from serve_app.telemetry import logging, tracing
logging.configure(LoggingConfig(traces_url=sys.argv[1] or None))
with structlog.contextvars.bound_contextvars(**tracing.carried(sys.argv[2]), job_id=7):
    with tracing.span("outer", "server"), tracing.span("inner", number=3):
        pass
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"opentelemetry"}))
"""


def run(url: str, **environment: str) -> str:
    """Run a process that makes two spans of a caller's trace, to its ordinary end."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, url, CALLER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def receiver():
    made = OtlpReceiver()
    yield made
    made.close()


def test_nothing_of_opentelemetry_is_imported_while_there_are_no_traces():
    assert run("") == ""


@pytest.mark.slow
def test_spans_arrive_at_a_receiver_by_the_protocol(receiver):
    assert run(receiver.traces_url) == "opentelemetry"
    inner, outer = receiver.wait_for(TRACE, {"outer", "inner"})
    assert (inner.name, outer.name) == ("inner", "outer")
    assert outer.parent_id == CALLER.split("-")[2]
    assert inner.parent_id == outer.span_id
    assert inner.attributes == {"dreamserve.job_id": 7, "dreamserve.number": 3}
    assert inner.resource["service.name"] == "dreamserve"


@pytest.mark.slow
def test_variables_of_opentelemetry_hold(receiver):
    """The exporter's headers and the names of the service are theirs to say."""
    run(
        receiver.traces_url,
        OTEL_SERVICE_NAME="pictures",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=ours",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )
    _, outer = receiver.wait_for(TRACE, {"outer", "inner"})
    assert outer.resource["service.name"] == "pictures"
    assert outer.resource["deployment.environment"] == "test"
    assert receiver.headers[0]["x-tenant"] == "ours"
    assert receiver.headers[0]["content-encoding"] == "gzip"


@pytest.mark.slow
def test_sampler_of_opentelemetry_may_drop_all(receiver):
    run(receiver.traces_url, OTEL_TRACES_SAMPLER="always_off")
    assert receiver.of_trace(TRACE) == []


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4318/x",
            },
            "http://t:4318/x",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
            None,
        ),
    ],
    ids=["nothing", "base", "traces", "none"],
)
def test_where_traces_go_without_a_setting(monkeypatch, environment, url):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert AppConfig().logging.traces_url == url
    ours = AppConfig(logging={"traces_url": "http://ours/v1/traces"})
    assert ours.logging.traces_url == "http://ours/v1/traces"


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (errors.InvalidImage("init_image", "/srv/secret"), "invalid_image", "ERROR"),
        (ValueError("/srv/secret"), "ValueError", "ERROR"),
        (asyncio.CancelledError(), "cancelled", "UNSET"),
    ],
    ids=["ours", "foreign", "cancelled"],
)
def test_span_tells_the_kind_of_an_error_and_not_its_text(spans, error, said, status):
    with contextlib.suppress(type(error)), tracing.span("work"):
        raise error
    (span,) = spans.named("work")
    assert span.attributes["error.type"] == said
    assert span.status.status_code.name == status
    assert "secret" not in span.to_json()


def test_lines_name_the_span_that_they_were_written_in(spans):
    with tracing.span("work"):
        bound = structlog.contextvars.get_contextvars()
        assert bound["traceparent"] == tracing.current()
    (span,) = spans.named("work")
    assert bound["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"
    assert "traceparent" not in structlog.contextvars.get_contextvars()


def test_past_work_is_recorded_when_it_was(spans):
    now, clock = time.monotonic(), time.time()
    with tracing.span("around"):
        tracing.record("before", now - 5, now - 3, sample=1)
    (before,), (around,) = spans.named("before"), spans.named("around")
    assert (before.end_time - before.start_time) / 1e9 == pytest.approx(2)
    assert before.end_time / 1e9 == pytest.approx(clock - 3, abs=1)
    assert before.parent.span_id == around.context.span_id
    assert before.attributes["dreamserve.sample"] == 1


def test_missing_package_is_told_before_ray_starts(monkeypatch):
    monkeypatch.setattr(preflight, "_EXPORTER", "package_that_is_not_there.exporter")
    config = AppConfig(logging=LoggingConfig(traces_url="http://127.0.0.1:1/v1/traces"))
    (problem,) = preflight.missing_extras(config)
    assert problem == "logging.traces_url: needs `pip install 'dreamserve[otel]'`"
    assert list(preflight.missing_extras(AppConfig())) == []
