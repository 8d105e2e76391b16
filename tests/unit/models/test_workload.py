"""The jobs inside a replica as seconds of work."""

import pytest

from serve_app.models.workload import Pace, Workload
from tests.builders import spec

PACE = Pace(step_s=0.1, row_cap=4, forward_s=0)
JOB = spec(steps=20)  # 40 row steps, which is one second


def test_work_shrinks_with_progress_and_ends_with_the_job():
    load = Workload()
    load.stats({}, PACE, now=0)
    with load.job(1, JOB), load.job(2, JOB):
        assert load.stats({2: 0.5}, PACE, now=0)["work_s"] == pytest.approx(1.5)
    assert load.stats({}, PACE, now=0) == {"work_s": 0, "job_s": pytest.approx(1), "busy": 0}


def test_jobs_cost_their_moving_average():
    load = Workload()
    load.stats({}, PACE, now=0)
    for samples, average_s in ((1, 1.0), (3, 1.2), (3, 1.38)):
        with load.job(samples, spec(steps=20, samples=samples)):
            assert load.stats({}, PACE, now=0)["job_s"] == pytest.approx(average_s)


def test_idle_model_keeps_its_last_pace():
    load = Workload()
    load.stats({}, PACE, now=0)
    idle = Pace(step_s=0, row_cap=4, forward_s=0)
    load.stats({}, idle, now=1)
    with load.job(1, JOB):
        assert load.stats({}, idle, now=2)["work_s"] == pytest.approx(1)


def test_model_that_never_painted_has_no_work_to_tell():
    load = Workload()
    with load.job(1, JOB):
        told = load.stats({}, Pace(0, 4, 0), now=0)
    assert (told["work_s"], told["job_s"]) == (0, 0)


def test_busy_is_the_share_of_the_last_minute():
    load = Workload()
    told = [load.stats({}, Pace(0.1, 4, s), now)["busy"] for now, s in ((0, 0), (10, 5), (40, 20))]
    assert told == [0, 0.5, 0.5]
    assert load.stats({}, Pace(0.1, 4, 20), now=69)["busy"] == pytest.approx(15 / 59)
    assert load.stats({}, Pace(0.1, 4, 20), now=200)["busy"] == 0


@pytest.mark.parametrize(("now", "busy"), [(60, 0.5), (60.5, 0.4)])
def test_minute_begins_at_a_look_of_60_seconds_ago_at_most(now, busy):
    load = Workload()
    for at, forward_s in ((0, 0), (10.5, 10)):
        load.stats({}, Pace(0.1, 4, forward_s), at)
    assert load.stats({}, Pace(0.1, 4, 30), now)["busy"] == pytest.approx(busy)


def test_busy_is_no_more_than_all_of_the_time_and_no_less_than_none():
    load = Workload()
    looks = ((0, 5.0), (1, 9.0), (2, 1.0))  # forwards side by side; a model loaded anew
    assert [load.stats({}, Pace(0.1, 4, s), now)["busy"] for now, s in looks] == [0, 1, 0]
