"""Nothing secret reaches a log line."""

import io
import json
import threading

import structlog

from serve_app.config import LoggingConfig
from serve_app.telemetry import logging


def test_log_line_is_json_with_context(capsys):
    logging.configure(LoggingConfig())
    with structlog.contextvars.bound_contextvars(job_id=7):
        structlog.get_logger().info("job_settled")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["job_id"], line["level"]) == ("job_settled", 7, "info")


class Recorder(io.StringIO):
    """Keeps each write apart."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, text):
        self.writes.append(text)
        return len(text)


def test_log_line_is_one_write_so_that_other_writers_cannot_tear_it(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("sys.stderr", recorder)
    logging.configure(LoggingConfig())
    structlog.get_logger().info("job_settled")
    assert [text.endswith("}\n") for text in recorder.writes] == [True]


def test_log_line_masks_secrets_at_any_depth(capsys):
    logging.configure(LoggingConfig())
    body = {"key": "sk_live_canary", "init_image": "AAAA", "nested": [{"webhook": "http://x?t=1"}]}
    structlog.get_logger().info("request", body=body, Authorization="Bearer sk_live_canary")
    line = capsys.readouterr().err
    assert not any(secret in line for secret in ("canary", "AAAA", "http://x"))


def test_log_line_cuts_overlong_text(capsys):
    logging.configure(LoggingConfig())
    structlog.get_logger().info("odd", text="x" * 100_000)
    assert len(capsys.readouterr().err) < 3000


def test_process_wide_fields_are_on_lines_of_threads_and_give_way(capsys):
    logging.configure(LoggingConfig(), model_id="sd15")
    log = structlog.get_logger()
    thread = threading.Thread(target=lambda: log.info("row_cap"))
    thread.start()
    thread.join()
    log.info("row_cap", model_id="other")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["model_id"] for line in lines] == ["sd15", "other"]
