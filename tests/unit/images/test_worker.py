"""The process of a worker by itself: what it says, where, and how it ends."""

import os
import pickle
import signal
import subprocess
import sys
from functools import partial

import pytest

from serve_app.images import worker
from serve_app.images.frame import pack

LIMITS = ("1000000000", "5", "0")


@pytest.fixture
def process():
    """A worker that is ready, at the other ends of its pipes."""
    command = (sys.executable, "-m", worker.__name__, *LIMITS)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, **pipes) as started:
        try:
            ready = pack("")
            assert started.stdout.read(len(ready)) == ready
            yield started
        finally:
            started.kill()


def test_output_holds_results_alone_and_ends_with_the_input(process):
    work = pickle.dumps(partial(os.write, 1, b"noise")) + pickle.dumps(partial(str, "said"))
    output, noise = process.communicate(work, timeout=30)
    assert output == pack(5) + pack("said")
    assert (process.returncode, noise) == (0, b"noise")


def test_worker_to_whom_nobody_listens_ends_without_a_word(process):
    process.stdout.close()
    process.stdin.write(pickle.dumps(partial(str, "said")))
    process.stdin.flush()
    assert process.wait(30) == -signal.SIGPIPE
    assert process.stderr.read() == b""
