"""`Recorder`: makes spans with OpenTelemetry. Only imported where traces are wanted.

A tracer provider of our own, not the global one: other libraries of the process, Ray among them,
neither use it nor are disturbed.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve_app import __version__, errors
from serve_app.telemetry.tracing import Kind, Marks

__all__ = ["Recorder", "exporting"]

_PROPAGATOR = TraceContextTextMapPropagator()
_CANCELLED = "cancelled"  # no failure: the client left, or asked for it
_FROM_LOGS = ("call_id", "job_id", "model_id")


def exporting(url: str) -> "Recorder":
    """Return a recorder that posts its spans to a collector, from a thread of its own.

    A collector that does not answer costs spans and nothing else. The variables of OpenTelemetry
    hold: sampling, limits, batches, headers and certificates of the exporter, names of the service.
    """
    ours = {
        "service.name": "dreamserve",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    resource = Resource(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return Recorder(provider)


def refusal(url: str, timeout_s: float) -> str | None:
    """Send a collector no spans, as `exporting` would send some; return why it took none."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger(OTLPSpanExporter.__module__)
    log.addHandler(handler)
    exporter = OTLPSpanExporter(endpoint=url, timeout=timeout_s)
    try:
        is_taken = exporter.export([]) is SpanExportResult.SUCCESS
    finally:
        log.removeHandler(handler)
        exporter.shutdown()  # type: ignore[no-untyped-call]
    return None if is_taken else next(iter(said), "refused")  # the first attempt says why


class Recorder:
    """Makes the spans of a process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("dreamserve", __version__)

    @contextmanager
    def span(self, name: str, kind: Kind, marks: Marks) -> Iterator[Marks]:
        """Surround a piece of work; see `tracing.span`."""
        context = structlog.contextvars.get_contextvars()
        made = self._tracer.start_span(name, context=_parent(context), kind=SpanKind[kind.upper()])
        with structlog.contextvars.bound_contextvars(traceparent=_traceparent(made)):
            try:
                yield marks
            except BaseException as exc:
                marks["error.type"] = _error_type(exc)
                raise
            finally:
                _mark(made, context, marks)
                made.end()

    def record(self, name: str, began: float, ended: float, marks: Marks) -> None:
        """Record a piece of work that is over; see `tracing.record`."""
        context = structlog.contextvars.get_contextvars()
        since = time.time_ns() - time.monotonic_ns()  # the epoch, by the monotonic clock
        made = self._tracer.start_span(
            name, context=_parent(context), start_time=since + int(began * 1e9)
        )
        _mark(made, context, marks)
        made.end(since + int(ended * 1e9))


def _parent(context: Mapping[str, object]) -> Context:
    return _PROPAGATOR.extract({"traceparent": str(context.get("traceparent", ""))}, Context())


def _traceparent(span: Span) -> str:
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def _mark(span: Span, context: Mapping[str, object], marks: Marks) -> None:
    """Put attributes and status on a span; texts of errors may quote a request, and stay out."""
    for name in _FROM_LOGS:
        if isinstance(value := context.get(name), str | int):
            span.set_attribute(f"dreamserve.{name}", value)
    span.set_attributes(marks)
    if "http.route" in marks:  # known only when the call has been routed
        span.update_name(f"{marks['http.request.method']} {marks['http.route']}")
    error = marks.get("error.type", _CANCELLED)
    if error != _CANCELLED:
        span.set_status(Status(StatusCode.ERROR, str(error)))


def _error_type(exc: BaseException) -> str:
    if isinstance(exc, errors.DreamserveError):
        return exc.code
    if isinstance(exc, asyncio.CancelledError):
        return _CANCELLED
    return type(exc).__name__
