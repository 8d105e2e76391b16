"""Why a worker was lost: a program that starts quickly in its place, which ends as it is told."""

import asyncio
import os
import signal
import sys
import time
from functools import partial

import psutil
import pytest

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import isolation as isolating
from serve_app.images.frame import LENGTH, pack
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
def program(tmp_path):
    path = tmp_path / "python"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
async def isolation(program, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(program))
    # None of these is to be found hung: whoever waits for that fails by the time a test may take.
    made = Isolation(ImagesConfig(decode_workers=1, decode_timeout_s=60))
    await made.start()
    yield made
    await made.aclose()


async def lost(isolation):
    """Return what was counted, once another worker is at work."""
    assert await isolation.run(partial(abs, -5)) == 5
    return dict(isolation.workers_lost)


def processes(program):
    return [one for one in psutil.Process().children() if str(program) in one.cmdline()]


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


async def test_program_is_told_its_limits_and_no_secret(isolation, monkeypatch):
    config = ImagesConfig(decode_timeout_s=60)
    told = await isolation.run(partial(eval, "[sys.argv[1:], dict(os.environ)]"))
    bounds = (config.decode_memory_bytes, config.decode_timeout_s, config.decode_niceness)
    command = ["-P", "-W", "ignore", "-m", "serve_app.images.worker"]
    assert told[0] == [*command, *map(str, bounds)]
    assert told[1].pop("PYTHONPATH") == os.pathsep.join(sys.path)
    assert {name for name in told[1] if not name.startswith(("MALLOC_", "OMP_", "OPENBLAS_"))} <= {
        "LC_CTYPE"  # which Python sets for itself
    }


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


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(LENGTH.pack(2**63), id="longer-than-its-memory"),
        pytest.param(LENGTH.pack(3) + b"???", id="no-pickle"),
        pytest.param(LENGTH.pack(11) + b"cos\nsystem\n.", id="a-function"),
    ],
)
async def test_worker_that_says_what_none_may_say_is_replaced(isolation, monkeypatch, said):
    """A picture that took it over is the reason, so its client is told."""
    monkeypatch.setattr(isolating, "_EXIT_TIMEOUT_S", 0.01)  # it does not end by itself
    with pytest.raises(errors.InvalidImage, match="init_image"):
        await isolation.run(partial(os.write, 1, said, field="init_image"))
    assert await lost(isolation) == {"crash": 1}


async def test_error_that_a_worker_says_is_raised(isolation):
    said = pack(errors.InvalidImage("mask_image", "The mask_image picture is broken."))
    with pytest.raises(errors.InvalidImage, match="is broken") as caught:
        await isolation.run(partial(os.write, 1, said))
    assert caught.value.field == "mask_image"
    assert dict(isolation.workers_lost) == {}


async def test_worker_is_replaced_once_whoever_hears_of_its_end(isolation):
    (worker,) = isolation._workers
    former = await worker.ready()
    second = await worker._replace(former, "hung")
    assert worker._replace(former, "hung").result() is second
    assert await lost(isolation) == {"hung": 1}
    assert await worker.ready() is second


async def test_caller_who_leaves_while_a_worker_starts_ends_no_start(program, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(program))
    isolation = Isolation(ImagesConfig(decode_workers=1))
    caller = asyncio.create_task(isolation.run(partial(abs, -7)))
    while isolation._workers[0]._process is None:
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert await isolation.run(partial(abs, -5)) == 5
    await isolation.aclose()


async def test_caller_who_leaves_while_a_worker_is_replaced_ends_no_start(isolation):
    former = await isolation._workers[0].ready()
    former.kill()
    while not former.stdout.at_eof():
        await asyncio.sleep(0.01)
    caller = asyncio.create_task(isolation.run(partial(abs, -7)))
    await asyncio.sleep(0.01)
    caller.cancel()
    await asyncio.wait([caller])
    assert await isolation.run(partial(abs, -5)) == 5


async def test_worker_that_ends_with_all_is_not_replaced(isolation, program):
    await isolation.run(partial(abs, -5))  # it is ready
    seen = program.with_name("seen")  # it is made when the field has been told
    work = partial(eval, f"(open({str(seen)!r}, 'w').close(), time.sleep(60))", field="init_image")
    caller = asyncio.create_task(isolation.run(work))
    while not seen.exists():
        await asyncio.sleep(0.01)
    for _ in range(10):  # turns of the loop, until it has heard of it
        await asyncio.sleep(0)
    await isolation.aclose()
    with pytest.raises(errors.InvalidImage):
        await caller
    assert processes(program) == []
    assert dict(isolation.workers_lost) == {}


async def test_workers_that_never_began_end_at_once():
    isolation = Isolation(ImagesConfig(decode_workers=2))
    await isolation.aclose()
    with pytest.raises(errors.ReplicaLost, match="closed"):
        await isolation.run(partial(abs, -5))


async def test_worker_that_ends_at_its_start_is_none(program, monkeypatch):
    program.write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(errors.ReplicaLost, match="IncompleteReadError"):
        await Isolation(ImagesConfig(decode_workers=1)).start()


async def test_start_waits_for_all_workers_and_says_that_there_are_none(program, monkeypatch):
    isolation = Isolation(ImagesConfig(decode_workers=3))
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", str(program.with_name("absent")))
        with pytest.raises(errors.ReplicaLost, match="FileNotFoundError"):
            await isolation.start()
    monkeypatch.setattr(sys, "executable", str(program))
    await isolation.start()
    assert len(processes(program)) == 3
    await isolation.aclose()
