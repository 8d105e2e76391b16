"""Rounds: what runs beside the calls of a replica for as long as it lives."""

import asyncio
from collections.abc import Iterable

__all__ = ["check_rounds"]


def check_rounds(rounds: Iterable["asyncio.Task[None]"]) -> None:
    """Raise RuntimeError when one has ended, by a bug: the replica would serve what is old."""
    for task in rounds:
        if task.done():
            raise RuntimeError(f"a round has ended: {task}")
