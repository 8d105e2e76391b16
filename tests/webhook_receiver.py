"""A receiver of webhooks on this machine that can be down and remembers all that came."""

import http.server
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Arrival", "Receiver"]


@dataclass(frozen=True)
class Arrival:
    """One request, whether it was answered well or not."""

    headers: dict[str, str]
    body: str
    is_accepted: bool

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def job_id(self) -> int:
        return json.loads(self.body)["id"]


class Receiver:
    """Serves until `close`.

    Args:
        is_down: asked for each request; when true, the answer is 503 or none at all, in turn.
    """

    def __init__(self, is_down: Callable[[], bool] = lambda: False):
        self.is_down = is_down
        self._arrivals: list[Arrival] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.close_connection = True
                num_bytes = int(self.headers["content-length"])
                content = self.rfile.read(num_bytes)
                if len(content) < num_bytes:
                    return  # the sender died half way
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver._note(Arrival(headers, content.decode(), not receiver.is_down()))
                if status is not None:
                    self.send_response(status)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://localhost:{self._server.server_port}/hook?secret=1"

    @property
    def arrivals(self) -> list[Arrival]:
        with self._lock:
            return list(self._arrivals)

    def accepted(self) -> dict[int, list[Arrival]]:
        """What was answered with 204, by job."""
        by_job = defaultdict(list)
        for arrival in self.arrivals:
            if arrival.is_accepted:
                by_job[arrival.job_id].append(arrival)
        return by_job

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _note(self, arrival: Arrival) -> int | None:
        with self._lock:
            self._arrivals.append(arrival)
            if arrival.is_accepted:
                return 204
            return 503 if len(self._arrivals) % 2 else None
