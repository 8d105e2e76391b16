"""`roll_out`: brings a Serve config file to a running service, in an order in which calls go on.

First come the parts that are called, then the one that calls them, last go those that nobody calls
any more. When something does not start, what ran before is put back: Serve would keep the old
replicas, but start no other in place of one that dies.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from serve_app.models.application import ServeFile

__all__ = ["Patience", "RolloutFailed", "Running", "Target", "roll_out"]

_DONE = "RUNNING"
_FAILED = "DEPLOY_FAILED"


class RolloutFailed(Exception):
    """What did not start, in a line."""


@dataclass(frozen=True, slots=True)
class Running:
    """An application as the controller sees it.

    Args:
        status: by Serve's name.
        messages: what Serve says of it and of its deployments; may have many lines.
        file: its part of the Serve config file that was deployed last; None: it came otherwise.
    """

    status: str
    messages: tuple[str, ...]
    file: ServeFile | None


class Target(Protocol):
    """What takes the file: Serve's REST API."""

    def look(self) -> Mapping[str, Running]:
        """Return the applications by name."""

    def put(self, file: ServeFile) -> None:
        """Deploy the applications of the file and no others; return before they run."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How to wait.

    Args:
        timeout_s: seconds until all has to run.
        poll_s: seconds between looks.
        sleep: waits some seconds.
        clock: seconds of any beginning.
    """

    timeout_s: float
    poll_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def roll_out(
    target: Target, file: ServeFile, tell: Callable[[str], None], patience: Patience
) -> None:
    """Deploy the file; its first application is the one that calls the others.

    Args:
        target: takes it.
        file: Serve config file.
        tell: takes lines for who waits.
        patience: how long.

    Raises:
        RolloutFailed: something did not start; what ran before has been put back.
    """
    before = {name: one.file for name, one in target.look().items() if one.file is not None}
    try:
        for applications in _steps(_by_name(file), before):
            _apply(target, _with(file, applications), tell, patience)
    except RolloutFailed:
        if before:
            tell("going back to what ran before")
            _apply(target, _with(file, before), tell, patience)
        raise


def _steps(
    wanted: Mapping[str, ServeFile], before: Mapping[str, ServeFile]
) -> Iterator[Mapping[str, ServeFile]]:
    caller = next(iter(wanted))
    if caller in before:
        yield {caller: before[caller], **_without(wanted, caller), **_without(before, *wanted)}
    yield wanted


def _apply(
    target: Target, file: ServeFile, tell: Callable[[str], None], patience: Patience
) -> None:
    """Put a file and wait until all of it runs."""
    target.put(file)
    begun = patience.clock()
    names = _by_name(file)
    told: dict[str, str] = {}
    while True:
        seen = target.look()
        for name in names:
            _tell_news(name, seen.get(name), told, tell)
        if failed := [name for name in names if name in seen and seen[name].status == _FAILED]:
            raise RolloutFailed(f"{failed[0]} did not start: {_reason(seen[failed[0]])}")
        if all(name in seen and seen[name].status == _DONE for name in names):
            return
        if patience.clock() - begun > patience.timeout_s:
            late = [name for name in names if name not in seen or seen[name].status != _DONE]
            raise RolloutFailed(f"after {patience.timeout_s:g} s these do not run: {late}")
        patience.sleep(patience.poll_s)


def _tell_news(
    name: str, seen: Running | None, told: dict[str, str], tell: Callable[[str], None]
) -> None:
    if seen is None or (seen.status == _DONE and name not in told):
        return
    news = " ".join((f"{name}: {seen.status.lower()}", _reason(seen))).strip()
    if news != told.get(name):
        told[name] = news
        tell(news)


def _reason(seen: Running) -> str:
    """Return the last line of what Serve says, which is that of the exception."""
    lines = [line for text in seen.messages for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _by_name(file: ServeFile) -> dict[str, ServeFile]:
    applications = file["applications"]
    assert isinstance(applications, list), "it was written by `in_parts`"
    return {str(one["name"]): one for one in applications if isinstance(one, dict)}


def _with(file: ServeFile, applications: Mapping[str, ServeFile]) -> ServeFile:
    return {**file, "applications": list[JsonValue](applications.values())}


def _without(applications: Mapping[str, ServeFile], *names: str) -> dict[str, ServeFile]:
    return {name: one for name, one in applications.items() if name not in names}
