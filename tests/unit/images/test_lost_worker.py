"""Why a worker was lost: a program that starts quickly in its place, which ends as it is told."""

import asyncio
import os
import signal
import sys
import time
from functools import partial

import pytest

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.isolation import Isolation

# Speaks as `images.worker` does. Of what it is told to call, 0.1 s lie between the end of the
# output and that of the process: the parent hears of the one before the other.
PROGRAM = """\
#!{python} -IS
import os, pickle, struct, sys, time

def say(said):
    data = pickle.dumps(said)
    os.write(1, struct.pack("<Q", len(data)) + data)

say("")
while True:
    work = pickle.load(sys.stdin.buffer)
    field = work.keywords.pop("field", "")
    if field:
        say(field)
    if work.keywords.pop("is_last", False):
        os.close(1)
        time.sleep(0.1)
    say(work())
"""


@pytest.fixture
async def isolation(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    made = Isolation(ImagesConfig(decode_workers=1))
    await made.start()
    yield made
    await made.aclose()


async def lost(isolation):
    """Return what was counted, once another worker is at work."""
    assert await isolation.run(partial(abs, -5)) == 5
    return dict(isolation.workers_lost)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        pytest.param(partial(os._exit, 12), "memory", id="out-of-memory"),
        pytest.param(partial(signal.raise_signal, signal.SIGALRM), "time", id="alarm"),
        pytest.param(partial(signal.raise_signal, signal.SIGSEGV), "crash", id="fault"),
        pytest.param(partial(os._exit, 0), "crash", id="end-without-a-reason"),
    ],
)
async def test_worker_that_ends_by_itself_tells_why(isolation, end, cause):
    with pytest.raises(errors.InvalidImage) as caught:
        await isolation.run(partial(end, field="mask_image", is_last=True))
    assert caught.value.field == "mask_image"
    assert await lost(isolation) == {cause: 1}


async def test_worker_whose_caller_left_is_killed(isolation):
    caller = asyncio.create_task(isolation.run(partial(time.sleep, 60)))
    await asyncio.sleep(0.05)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await lost(isolation) == {"cancelled": 1}


async def test_workers_that_end_before_they_read_anything_are_nobodys_pictures_fault(isolation):
    with pytest.raises(errors.ReplicaLost, match="worker of pictures"):
        await isolation.run(partial(os._exit, 12, is_last=True))
    assert await lost(isolation) == {"memory": 2}
