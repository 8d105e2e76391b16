"""Who comes in when, and that nobody is lost in the line."""

import asyncio
from contextlib import suppress

import pytest

from serve_app.fairness import Places, Stake
from serve_app.turnstile import Turnstile

HEAVY, LIGHT = Stake("heavy"), Stake("light")


class Visits:
    """Visits that stay until they are told to leave; `inside` has their names in order."""

    def __init__(self, places):
        self.turnstile = Turnstile(places)
        self.inside = []
        self.tasks = {}
        self._leave = {}

    async def come(self, name, stake):
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._visit(name, stake))
        await asyncio.sleep(0)

    async def leave(self, name):
        self._leave[name].set()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        await asyncio.sleep(0)

    async def _visit(self, name, stake):
        async with self.turnstile.visit(stake):
            self.inside.append(name)
            await self._leave[name].wait()


async def test_owners_come_in_by_turns():
    """What one had while nobody else wanted it does not count."""
    visits = Visits(Places(1))
    for number in range(5):
        await visits.come(f"heavy {number}", HEAVY)
    for number in range(2):
        await visits.come(f"light {number}", LIGHT)
    for number in range(6):
        await visits.leave(visits.inside[number])
    assert visits.inside == [
        "heavy 0", "heavy 1", "light 0", "heavy 2", "light 1", "heavy 3", "heavy 4",
    ]  # fmt: skip


async def test_guest_comes_in_although_all_places_are_taken():
    visits = Visits(Places(2, guests=1))
    for number in range(4):
        await visits.come(f"heavy {number}", HEAVY)
    await visits.come("light", LIGHT)
    assert visits.inside == ["heavy 0", "heavy 1", "light"]


async def test_urgent_visit_is_before_others_of_its_owner():
    visits = Visits(Places(1))
    for number in range(3):
        await visits.come(number, HEAVY)
    await visits.come("urgent", Stake("heavy", priority=1))
    await visits.leave(0)
    assert visits.inside == [0, "urgent"]


@pytest.mark.parametrize("is_inside", [True, False], ids=["inside", "in-line"])
async def test_cancelled_visit_leaves_its_place_to_the_next(is_inside):
    visits = Visits(Places(1))
    for number in range(3):
        await visits.come(number, HEAVY)
    visits.tasks[0 if is_inside else 1].cancel()
    await asyncio.sleep(0)
    await visits.leave(0)
    await visits.leave(visits.inside[-1])
    assert visits.inside == ([0, 1, 2] if is_inside else [0, 2])


async def test_visit_cancelled_when_it_was_just_let_in_gives_its_place_back():
    visits = Visits(Places(1))
    for number in range(3):
        await visits.come(number, HEAVY)
    visits._leave[0].set()
    await visits.tasks[0]  # the next one is let in, and has not run yet
    visits.tasks[1].cancel()
    with suppress(asyncio.CancelledError):
        await visits.tasks[1]
    await asyncio.sleep(0)
    assert visits.inside[-1] == 2


async def test_visit_cancelled_while_another_leaves_is_passed_over():
    visits = Visits(Places(1))
    for number in range(3):
        await visits.come(number, HEAVY)
    visits._leave[0].set()
    visits.tasks[1].cancel()  # its task hears of it after that of the one inside
    await asyncio.sleep(0)
    await visits.tasks[0]
    await asyncio.sleep(0)
    assert visits.inside == [0, 2]


async def test_failing_visit_gives_its_place_back():
    turnstile = Turnstile(Places(1))
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            async with turnstile.visit(HEAVY):
                raise ValueError("broken")
