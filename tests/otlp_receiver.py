"""A receiver of OTLP over HTTP on this machine; the protocol's own classes decode what comes."""

import gzip
import http.server
import threading
import time
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came over the wire."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict
    resource: dict
    status: int
    seconds: float


class OtlpReceiver:
    """Serves until `close`."""

    def __init__(self):
        self._spans: list[ReceivedSpan] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                content = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    content = gzip.decompress(content)
                is_ours = self.path == "/v1/traces"
                if is_ours:
                    receiver._keep(content, dict(self.headers.items()))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if is_ours else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def traces_url(self) -> str:
        return f"{self.base_url}/v1/traces"

    def of_trace(self, trace_id: str) -> list[ReceivedSpan]:
        return [span for span in list(self._spans) if span.trace_id == trace_id]

    def wait_for(
        self, trace_id: str, names: set[str], timeout_s: float = 120
    ) -> list[ReceivedSpan]:
        """Return the spans of a trace once all of these names have come."""
        end = time.monotonic() + timeout_s
        while True:
            found = self.of_trace(trace_id)
            if names <= {span.name for span in found}:
                return found
            assert time.monotonic() < end, f"{names} have not come, only {found}"
            time.sleep(0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _keep(self, content: bytes, headers: dict[str, str]) -> None:
        self.headers.append({name.lower(): value for name, value in headers.items()})
        for group in ExportTraceServiceRequest.FromString(content).resource_spans:
            resource = _plain(group.resource.attributes)
            self._spans += [
                ReceivedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    attributes=_plain(span.attributes),
                    resource=resource,
                    status=span.status.code,
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )
                for scope in group.scope_spans
                for span in scope.spans
            ]


def _plain(attributes) -> dict:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
