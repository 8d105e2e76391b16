"""The process of a worker by itself: what it says, where, and how it ends."""

import os
import pickle
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.images import worker
from serve_app.images.frame import LENGTH, OUT_OF_MEMORY, pack

LIMIT_BYTES, LIMIT_S = 10**9, 60
WATCH = "__import__('serve_app.images.reading').images.reading.watch.get()('mask_image')"
LEFT_S = "__import__('signal').getitimer(0)[0]"
REFUSED = "from serve_app import errors; raise errors.InvalidImage('init_image', 'broken')"


@pytest.fixture
def limits():
    """Of a file: bytes and seconds; and the niceness."""
    return LIMIT_BYTES, LIMIT_S, 0


@pytest.fixture
def process(limits):
    """A worker that is ready, at the other ends of its pipes."""
    command = (sys.executable, "-m", worker.__name__, *map(str, limits))
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, **pipes) as started:
        try:
            ready = pack("")
            assert started.stdout.read(len(ready)) == ready
            yield started
        finally:
            started.kill()


def tell(process, *call):
    process.stdin.write(pickle.dumps(partial(*call)))
    process.stdin.flush()


def hear(process):
    (length,) = LENGTH.unpack(process.stdout.read(LENGTH.size))
    return pickle.loads(process.stdout.read(length))


def ask(process, code):
    tell(process, eval, code)
    return hear(process)


def test_output_holds_results_alone_and_ends_with_the_input(process):
    work = pickle.dumps(partial(os.write, 1, b"noise")) + pickle.dumps(partial(str, "said"))
    output, noise = process.communicate(work, timeout=30)
    assert output == pack(5) + pack("said")
    assert (process.returncode, noise) == (0, b"noise")


def test_worker_to_whom_nobody_listens_ends_without_a_word(process):
    process.stdout.close()
    tell(process, str, "said")
    assert process.wait(30) == -signal.SIGPIPE
    assert process.stderr.read() == b""


@pytest.mark.parametrize("limits", [(LIMIT_BYTES, LIMIT_S, 3)])
@pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses the limit")
def test_worker_keeps_the_limits_of_its_arguments(process):
    limit, core = (
        ask(process, f"__import__('resource').getrlimit({number})")
        for number in (worker.resource.RLIMIT_AS, worker.resource.RLIMIT_CORE)
    )
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    held_bytes = pages * os.sysconf("SC_PAGE_SIZE")  # a little more than when it began
    assert limit[0] == limit[1]
    assert held_bytes - 10**8 < limit[0] - LIMIT_BYTES <= held_bytes
    assert core == (0, 0)
    assert ask(process, "__import__('os').nice(0)") == min(19, os.nice(0) + 3)
    assert ask(process, "__import__('signal').getsignal(2)") == signal.SIG_IGN


def test_worker_has_its_time_for_each_file_and_none_counts_for_the_rest(process):
    inside = f"watch.__enter__(), {LEFT_S}, watch.__exit__(*[None] * 3), {LEFT_S}"
    tell(process, eval, f"[({inside}) for watch in [{WATCH}]]")
    assert hear(process) == "mask_image"
    ((_, inside_s, _, after_s),) = hear(process)
    assert 0 < inside_s <= LIMIT_S
    assert after_s == 0


@pytest.mark.parametrize("limits", [(LIMIT_BYTES, 0.1, 0)])
def test_worker_whose_time_is_over_ends(process):
    tell(process, exec, f"with {WATCH}: __import__('time').sleep(60)")
    assert hear(process) == "mask_image"
    assert process.wait(30) == -signal.SIGALRM


def test_worker_tells_what_went_wrong_and_ends_without_memory(process):
    bug = ask(process, "[][0]")
    assert (type(bug), str(bug)) == (errors.GenerationFailed, "IndexError")
    tell(process, exec, REFUSED)
    refusal = hear(process)
    assert (type(refusal), refusal.field) == (errors.InvalidImage, "init_image")
    tell(process, bytearray, 2 * LIMIT_BYTES)
    assert process.wait(30) == OUT_OF_MEMORY
    assert process.stdout.read() == b""
    assert process.stderr.read().count(b"Traceback") == 1, "of the bug, for the log"
