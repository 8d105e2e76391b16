"""Spans of what the engine does for a job: it reads texts and pictures, takes steps, decodes."""

from collections.abc import Sequence

from serve_app.engine.request import Request
from serve_app.telemetry import tracing

__all__ = ["record_phases"]


def record_phases(requests: Sequence[Request]) -> None:
    """Record how far each sample of a job came; what it did not come to has no span.

    The engine serves many jobs at once: these are the times of this one, in which its rows shared
    forwards with those of others.
    """
    for sample, request in enumerate(requests):
        times = request.times
        moments = (times.began, times.steps_began, times.steps_ended, times.ended)
        for name, began, ended in zip(
            ("encode", "steps", "decode"), moments, moments[1:], strict=False
        ):
            if began and ended:
                tracing.record(name, began, ended, sample=sample)
