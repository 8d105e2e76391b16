import asyncio
import gc

import pytest

from deployments.background import Rounds
from serve_app.background import Background


async def test_task_that_nobody_holds_runs_to_its_end():
    background, ended = Background(), asyncio.Event()

    async def work():
        waiting = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, waiting.set_result, None)
        await waiting
        ended.set()

    background.start(work())
    gc.collect()
    assert len(background) == 1
    await asyncio.wait_for(ended.wait(), 5)
    await background.wait()
    assert len(background) == 0


async def test_wait_raises_what_a_task_raised():
    background = Background()

    async def fail():
        raise ValueError("broken")

    background.start(fail())
    with pytest.raises(ValueError, match="broken"):
        await background.wait()


async def test_cancelled_tasks_have_ended():
    background, ended = Background(), []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    background.start(work())
    await asyncio.sleep(0)
    await background.cancel()
    assert ended == [True]


async def test_round_that_has_ended_is_ill_health_and_others_end_with_it():
    ended = asyncio.Event()

    async def endless():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def short():
        pass

    rounds = Rounds(endless(), short())
    rounds.check_health()
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="has ended"):
        rounds.check_health()
    await rounds.close()
    assert ended.is_set()
