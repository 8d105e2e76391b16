"""Worker processes: what they make, how they are stopped, and what their parent believes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest
from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import isolation
from serve_app.images.codec import to_image
from serve_app.images.isolation import Isolation
from serve_app.images.prepare import prepare, prepare_ip_picture
from serve_app.images.reencode import reencode
from serve_app.types import Size
from tests.picture_files import LARGE, file, png, rows, scans

pytestmark = pytest.mark.slow

RED = file(Image.new("RGB", (60, 40), "red"))
WHITE = file(Image.new("L", (60, 40), "white"))
SLOW = scans(20_000, *LARGE, progressive=True)  # some minutes
WIDE = png(*LARGE, rows(LARGE[1] * (LARGE[0] + 1)), colour=0)  # some 90 MB
LIMITS = {"max_scans": 1_000_000, "decode_workers": 1}
DEAR = "takes too much time or memory"
PARENT = """
import asyncio, sys
from functools import partial
from serve_app.config import ImagesConfig
from serve_app.images.isolation import Isolation
from serve_app.images.prepare import prepare_ip_picture

async def main(path):
    config = ImagesConfig(decode_timeout_s=5, max_scans=1_000_000)
    isolation = Isolation(config)
    await isolation.start()
    with open(path, "rb") as file:
        work = asyncio.create_task(isolation.run(partial(prepare_ip_picture, file.read(), config)))
    await asyncio.sleep(0.5)
    print("at work", flush=True)
    await work

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
async def isolate():
    """Make isolations that end with the test."""
    made = []

    async def make(**limits):
        config = ImagesConfig(**LIMITS | limits)
        isolation = Isolation(config)
        made.append(isolation)
        await isolation.start()
        return isolation, config

    yield make
    for one in made:
        await one.aclose()


def workers(parent: psutil.Process | None = None) -> list[psutil.Process]:
    children = (parent or psutil.Process()).children()
    return [child for child in children if "serve_app.images.worker" in child.cmdline()]


async def read(isolation, config, data=RED) -> tuple[int, int, int]:
    """Read a picture; the colour of its first pixel."""
    images = await isolation.run(partial(prepare, data, None, Size(height=16, width=24), config))
    return to_image(images.init).getpixel((0, 0))


async def begin(isolation, config, data) -> "asyncio.Task[tuple[int, int, int]]":
    """Start reading a picture, and wait until a worker is at it."""
    before = {process: sum(process.cpu_times()) for process in workers()}
    reading = asyncio.create_task(read(isolation, config, data))
    while all(sum(process.cpu_times()) < spent + 0.1 for process, spent in before.items()):
        await asyncio.sleep(0.02)
    return reading


async def gone(processes) -> bool:
    """Whether they end soon; asked without waiting for them, which would take their codes."""
    for _ in range(1000):
        if not any(process.is_running() for process in processes):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_worker_makes_every_kind_of_result(isolate):
    isolation, config = await isolate()
    images = await isolation.run(partial(prepare, RED, WHITE, Size(height=16, width=24), config))
    assert to_image(images.init).size == to_image(images.mask).size == (24, 16)
    picture = await isolation.run(partial(prepare_ip_picture, RED, config))
    assert (picture.height, picture.width) == (40, 60)
    square = await isolation.run(partial(reencode, "image", RED, config, crop=True))
    assert to_image(square).size == (40, 40)


async def test_error_of_a_picture_comes_out_with_its_field(isolate):
    isolation, config = await isolate()
    with pytest.raises(errors.InvalidImage, match="base64_string file is not") as caught:
        await isolation.run(partial(reencode, "base64_string", b"<svg/>", config))
    assert caught.value.field == "base64_string"


async def test_workers_are_kept(isolate):
    isolation, config = await isolate()
    before = workers()
    for _ in range(5):
        await read(isolation, config)
        with pytest.raises(errors.InvalidImage):
            await read(isolation, config, b"no picture")
    assert workers() == before


@pytest.mark.slow
async def test_picture_that_takes_too_long_is_refused_and_its_worker_replaced(isolate):
    isolation, config = await isolate(decode_timeout_s=1)
    before = workers()
    with pytest.raises(errors.InvalidImage, match=f"init_image picture {DEAR}"):
        await read(isolation, config, SLOW)
    assert await read(isolation, config) == (255, 0, 0)
    assert not {process.pid for process in before} & {process.pid for process in workers()}
    assert isolation.workers_lost == {"time": 1}


@pytest.mark.slow
async def test_time_is_counted_for_each_picture_and_names_the_one_that_took_it(isolate):
    isolation, config = await isolate(decode_timeout_s=1)
    with pytest.raises(errors.InvalidImage, match=DEAR) as caught:
        await isolation.run(partial(prepare, RED, SLOW, Size(height=16, width=24), config))
    assert caught.value.field == "mask_image"


@pytest.mark.slow
async def test_picture_that_takes_too_much_memory_is_refused(isolate):
    isolation, config = await isolate(decode_memory_bytes=16 * 1024**2)
    with pytest.raises(errors.InvalidImage, match=f"init_image picture {DEAR}"):
        await read(isolation, config, WIDE)
    assert await read(isolation, config) == (255, 0, 0)
    assert isolation.workers_lost == {"memory": 1}


async def test_largest_picture_fits_the_default_limits(isolate):
    isolation, config = await isolate(max_scans=100, decode_timeout_s=60)
    assert await read(isolation, config, WIDE) == (0, 0, 0)


async def test_cancelled_caller_ends_the_worker_at_once(isolate):
    isolation, config = await isolate(decode_timeout_s=60)
    before = workers()
    caller = await begin(isolation, config, SLOW)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await gone(before)
    assert await read(isolation, config) == (255, 0, 0)
    assert isolation.workers_lost == {"cancelled": 1}


async def test_cancelled_waiter_takes_no_place(isolate):
    isolation, config = await isolate(decode_timeout_s=60)
    (worker,) = workers()
    caller = await begin(isolation, config, SLOW)
    waiter = asyncio.create_task(read(isolation, config))
    await asyncio.sleep(0)
    waiter.cancel()
    worker.kill()
    with pytest.raises(errors.InvalidImage, match=DEAR):
        await caller
    assert waiter.cancelled()
    assert await read(isolation, config) == (255, 0, 0)


async def test_neighbours_of_a_dear_picture_go_on(isolate):
    isolation, config = await isolate(decode_workers=2, decode_timeout_s=30)
    dear = await begin(isolation, config, SLOW)
    for _ in range(5):
        assert await read(isolation, config) == (255, 0, 0)
    assert not dear.done()
    dear.cancel()
    assert await read(isolation, config) == (255, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=str)
async def test_worker_that_dies_at_work_is_the_pictures_fault(isolate, number):
    isolation, config = await isolate(decode_timeout_s=60)
    (worker,) = workers()
    caller = await begin(isolation, config, SLOW)
    worker.send_signal(number)
    with pytest.raises(errors.InvalidImage, match=f"init_image picture {DEAR}"):
        await caller
    assert await read(isolation, config) == (255, 0, 0)
    assert isolation.workers_lost == {"crash": 1}


async def test_worker_that_died_between_two_pictures_is_nobodys_fault(isolate):
    isolation, config = await isolate()
    (worker,) = workers()
    worker.kill()
    assert await gone([worker])
    await asyncio.sleep(0.2)  # until its pipe is seen to be closed
    assert await read(isolation, config) == (255, 0, 0)
    assert isolation.workers_lost == {"crash": 1}


async def test_worker_whose_death_nobody_has_seen_yet_is_nobodys_fault(isolate):
    isolation, config = await isolate()
    (worker,) = workers()
    worker.kill()
    with suppress(psutil.NoSuchProcess):
        while worker.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)  # noqa: ASYNC251  # so that the loop sees nothing of it
    assert await read(isolation, config) == (255, 0, 0)


async def test_worker_that_does_not_come_to_its_start_is_given_up(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(isolation, "_START_TIMEOUT_S", 0.2)
    with pytest.raises(errors.ReplicaLost):
        await Isolation(ImagesConfig(**LIMITS)).start()


@pytest.mark.slow
async def test_worker_that_hangs_is_replaced(isolate):
    isolation, config = await isolate(decode_timeout_s=1)
    (worker,) = workers()
    worker.suspend()
    with pytest.raises(errors.ReplicaLost):
        await read(isolation, config)
    assert await gone([worker])
    assert await read(isolation, config) == (255, 0, 0)
    assert isolation.workers_lost == {"hung": 1}


async def test_interrupt_of_the_terminal_is_left_to_the_parent(isolate):
    isolation, config = await isolate()
    (worker,) = workers()
    worker.send_signal(signal.SIGINT)
    assert await read(isolation, config) == (255, 0, 0)
    assert workers() == [worker]


async def test_bug_is_not_the_pictures_fault(isolate):
    isolation, config = await isolate()
    with pytest.raises(errors.GenerationFailed) as caught:
        await isolation.run(partial(json.loads, "{"))
    assert "JSONDecodeError" in str(caught.value)
    assert await read(isolation, config) == (255, 0, 0)


async def test_what_is_printed_does_not_stand_in_the_output(isolate):
    isolation, config = await isolate()
    assert await isolation.run(partial(print, "noise", flush=True)) is None
    assert await read(isolation, config) == (255, 0, 0)


async def test_worker_knows_no_secret_and_loads_nothing_heavy(isolate, monkeypatch):
    monkeypatch.setenv("DREAMSERVE_STORAGE__S3__SECRET_ACCESS_KEY", "canary")
    await isolate()
    (worker,) = workers()
    assert "canary" not in str(worker.environ())
    loaded = {os.path.basename(mapped.path).split(".")[0] for mapped in worker.memory_maps()}
    assert "_imaging" in loaded
    assert not {name for name in loaded if name.startswith(("libtorch", "_raylet", "libc10"))}


async def test_worker_that_cannot_start_is_told_and_tried_again(isolate, monkeypatch):
    isolation = Isolation(ImagesConfig())
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(errors.ReplicaLost):
            await isolation.start()
    await isolation.start()
    await isolation.aclose()


async def test_workers_are_less_urgent_than_who_answers_callers(isolate):
    await isolate(decode_niceness=3)
    (worker,) = workers()
    assert worker.nice() == min(19, psutil.Process().nice() + 3)


async def test_workers_that_end_at_work_are_not_replaced(isolate):
    isolation, config = await isolate()
    work = await begin(isolation, config, SLOW)
    former = workers()
    in_the_line = [asyncio.create_task(read(isolation, config, RED)) for _ in range(3)]
    await asyncio.sleep(0)
    await isolation.aclose()
    with pytest.raises(errors.InvalidImage):
        await work
    told = await asyncio.gather(*in_the_line, return_exceptions=True)
    assert [type(exc) for exc in told] == [errors.ReplicaLost] * 3
    assert await gone(former)
    assert workers() == []


@pytest.mark.slow
def test_workers_end_with_their_parent_however_it_ends(tmp_path):
    (tmp_path / "slow.jpg").write_bytes(SLOW)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "slow.jpg")]
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ) as parent:
        assert parent.stdout.readline() == b"at work\n"
        children = workers(psutil.Process(parent.pid))
        parent.kill()
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=20)[1] == []
