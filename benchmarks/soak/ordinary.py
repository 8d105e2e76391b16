"""Ordinary callers: a few kinds of calls at a steady pace, each timed."""

import asyncio
import base64
import io
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
from PIL import Image

from benchmarks.soak.installation import MODEL, Installation

__all__ = ["CALLS", "Ordinary", "Times"]

_SIDE_PX = 64
_TIMEOUT_S = 60.0
_V4 = "/api/v4/dreambooth"
CALLS = {"live": 0.25, "fetch": 0.5, "text2img": 1.0, "inpaint": 1.0}  # seconds between two


@dataclass(slots=True)
class Times:
    """Of one phase: seconds from when a call was due to its answer, and what failures said."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CALLS})
    failures: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CALLS})
    late_s: float = 0.0  # how late this process sent the latest of them


class Ordinary:
    """The callers. Make it inside of the event loop that runs it."""

    def __init__(self, installed: Installation) -> None:
        self._http = httpx2.AsyncClient(
            base_url=installed.base_url, timeout=_TIMEOUT_S, trust_env=False
        )
        self._key = {"key": installed.ordinary_key}
        self._done = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def prepare(self) -> None:
        """Make the job that is fetched, and send each call a few times to warm up."""
        self._done = (await self._answer(_V4, _painting()))["id"]
        for name in CALLS:
            for _ in range(3):
                await self._send(name)

    async def run(self, duration_s: float) -> Times:
        """Send each call at its pace, whatever became of those before; wait for all."""
        times = Times()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for name, pause_s in CALLS.items():
                for number in range(int(duration_s / pause_s)):
                    group.create_task(self._one(name, began + number * pause_s, times))
        return times

    async def _one(self, name: str, due: float, times: Times) -> None:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        times.late_s = max(times.late_s, time.perf_counter() - due)
        try:
            await self._send(name)
        except (httpx2.HTTPError, _FailedError) as exc:
            times.failures[name].append(f"{type(exc).__name__}: {exc}"[:120])
        else:
            times.seconds[name].append(time.perf_counter() - due)

    async def _send(self, name: str) -> None:
        if name == "live":
            (await self._http.get("/health/live")).raise_for_status()
        elif name == "fetch":
            await self._answer(f"{_V4}/fetch/{self._done}", {})
        elif name == "text2img":
            await self._answer(_V4, _painting())
        else:
            await self._answer(f"{_V4}/inpaint", _painting() | _PICTURES)

    async def _answer(self, path: str, fields: dict[str, str | int]) -> dict[str, Any]:
        reply = await self._http.post(path, json=self._key | fields)
        answer: dict[str, Any] = reply.raise_for_status().json()
        if answer["status"] != "success":
            raise _FailedError(f"{answer['status']}, {answer.get('reason')}")
        return answer


class _FailedError(Exception):
    """The call was answered, but not with its result."""


def _painting() -> dict[str, str | int]:
    return {
        "model_id": MODEL,
        "prompt": "a picture",
        "width": _SIDE_PX,
        "height": _SIDE_PX,
        "num_inference_steps": 10,
        "safety_checker": "no",
        "enhance_prompt": "no",
    }


def _inline(colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (_SIDE_PX, _SIDE_PX), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


_PICTURES: dict[str, str | int] = {"init_image": _inline("teal"), "mask_image": _inline("white")}
