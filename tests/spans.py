"""The spans of a test, kept in memory, and as trees of names."""

from collections.abc import Iterable

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve_app.telemetry import tracing
from serve_app.telemetry.recorder import Recorder

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # of the specification
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Spans:
    """What was recorded so far."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.recorder = Recorder(provider)

    def all(self) -> list[ReadableSpan]:
        """The spans that have ended, by their beginning."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def under(self, traceparent: str) -> dict:
        """The tree of names that a caller would see under its span."""
        _, trace_id, span_id, _ = traceparent.split("-")
        trace = [span for span in self.all() if span.context.trace_id == int(trace_id, 16)]
        return _tree(trace, int(span_id, 16))


def _tree(spans: Iterable[ReadableSpan], parent_id: int) -> dict:
    return {
        span.name: _tree(spans, span.context.span_id)
        for span in spans
        if span.parent is not None and span.parent.span_id == parent_id
    }


@pytest.fixture
def spans():
    """Records the spans of this process. Take it after what configures its logs."""
    found = Spans()
    tracing.use(found.recorder)
    yield found
    tracing.use(None)
