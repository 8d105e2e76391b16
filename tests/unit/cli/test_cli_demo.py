"""Where the demo's service listens."""

import random
import socket
from pathlib import Path

import pytest

from serve_app.cli import demo
from serve_app.cli.demo import free_port

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # that Linux gives away by itself


def test_ports_are_free_and_never_given_to_anybody_else():
    ports = {free_port() for _ in range(20)}
    assert len(ports) == 20
    lowest = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    if lowest < 32_768:
        pytest.skip("this machine was told to give away others than Linux does")
    for port in ports:
        assert 1024 <= port < lowest
        with socket.create_server(("127.0.0.1", port)):
            assert free_port() != port


def test_processes_of_one_seed_draw_other_ports():
    """As the workers of a test run are."""
    drawn = []
    for _ in range(2):
        random.seed(1)
        draw = demo._drawn_ports.__wrapped__()
        drawn.append([next(draw) for _ in range(5)])
    assert drawn[0] != drawn[1]


def test_port_that_somebody_listens_on_is_passed_over(monkeypatch):
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        free = free_port()
        drawn = iter([taken.getsockname()[1], free])
        monkeypatch.setattr("serve_app.cli.demo._drawn_ports", lambda: drawn)
        assert free_port() == free
