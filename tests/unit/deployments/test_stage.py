"""Errors as values, and what Ray's own errors mean for a job."""

import json

import pytest
import structlog
from ray.exceptions import (
    ActorDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.stage import StageFailure, last_of, stage, translate
from serve_app import errors
from serve_app.config import LoggingConfig
from serve_app.telemetry import logging


class Host:
    runs = 0

    @stage
    async def work(self, value, fail=None):
        self.runs += 1
        if fail:
            raise fail
        return value


class Response:
    def __init__(self, outcome):
        self.outcome = outcome
        self.is_cancelled = False

    def __await__(self):
        yield from ()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def cancel(self):
        self.is_cancelled = True


async def test_stage_hands_an_error_of_ours_on_as_a_value():
    error = errors.InvalidImage("init_image", "unreadable")
    assert await Host().work(1, error) == StageFailure(error)


async def test_stage_turns_a_bug_into_a_failure_that_says_nothing():
    failure = await Host().work(1, ValueError("/srv/secret"))
    assert isinstance(failure.error, errors.GenerationFailed)
    assert "secret" not in failure.error.public_message


async def test_stage_is_skipped_after_a_failure():
    host, failure = Host(), StageFailure(errors.Overloaded())
    assert await host.work(failure) is failure
    assert host.runs == 0


async def test_lines_of_a_stage_carry_what_the_callers_do(capsys):
    logging.configure(LoggingConfig())
    with structlog.contextvars.bound_contextvars(job_id=7, call_id="r-1"):
        log_context = dict(logging.current_context())
    await Host().work(1, errors.Overloaded(), log_context=log_context)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["stage"]) == ("stage_done", "Host.work")
    assert (line["job_id"], line["call_id"], line["outcome"]) == (7, "r-1", "overloaded")
    assert logging.current_context() == {}


async def test_chain_gives_the_last_result():
    assert await last_of(iter([Response(1), Response(2)]), int) == 2


async def test_chain_raises_what_is_inside_a_failure():
    with pytest.raises(errors.NonFiniteLatents):
        await last_of(iter([Response(StageFailure(errors.NonFiniteLatents()))]), int)


async def test_chain_cancels_every_stage_when_one_is_lost():
    stages = [Response(1), Response(WorkerCrashedError())]
    with pytest.raises(errors.ReplicaLost):
        await last_of(iter(stages), int)
    assert all(stage.is_cancelled for stage in stages)


def chained(cause):
    error = RayServeException("upstream actor died")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("met", "meant"),
    [
        (ActorDiedError(), errors.ReplicaLost),
        (ObjectLostError("a" * 40, None, ""), errors.ReplicaLost),
        (WorkerCrashedError(), errors.ReplicaLost),
        (OutOfMemoryError(""), errors.ReplicaLost),
        (chained(ActorDiedError()), errors.ReplicaLost),
        (RayServeException("replica unavailable"), errors.ReplicaLost),
        (RayTaskError("paint", "", ActorDiedError()), errors.ReplicaLost),
        (BackPressureError(num_queued_requests=9, max_queued_requests=8), errors.Overloaded),
        (RayTaskError("paint", "", ValueError("bug")), errors.GenerationFailed),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_errors_of_ray_are_named(met, meant):
    assert type(translate(met)) is meant
