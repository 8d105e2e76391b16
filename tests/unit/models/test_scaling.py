"""How many replicas the work needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.scaling import Demand, ScalingRules, desired_replicas, row_steps, work_s
from serve_app.types import Kind
from tests.builders import spec

RULES = ScalingRules(target_utilisation=0.75, target_wait_s=10)


@pytest.mark.parametrize(
    ("changes", "progress", "wanted"),
    [
        pytest.param({"steps": 20}, 0.0, 40, id="guided"),
        pytest.param({"steps": 20, "guidance_scale": 1.0}, 0.0, 20, id="unguided"),
        pytest.param({"steps": 20, "samples": 4}, 0.75, 40, id="samples-and-progress"),
        pytest.param({"steps": 20, "kind": Kind.IMG2IMG, "strength": 0.5}, 0, 20, id="strength"),
        pytest.param({"steps": 5, "kind": Kind.INPAINT, "strength": 0.5}, 0, 6, id="rounded-up"),
        pytest.param({"steps": 20, "guidance_scale": 1.5}, 0.0, 40, id="barely-guided"),
    ],
)
def test_row_steps_of_a_job(changes, progress, wanted):
    assert row_steps(spec(**changes), progress) == wanted


def test_row_steps_are_those_of_the_whole_job_unless_progress_is_told():
    assert row_steps(spec(steps=20)) == 40


def test_work_is_shared_by_the_rows_of_a_forward():
    assert work_s(400, step_s=0.05, row_cap=8) == pytest.approx(2.5)
    assert work_s(400, step_s=0.05, row_cap=0) == pytest.approx(20)


@pytest.mark.parametrize(
    ("busy", "work", "jobs", "wanted"),
    [
        pytest.param(0, 0, 0, 0, id="nothing"),
        pytest.param(0, 0, 1, 1, id="first-job-before-anything-is-measured"),
        pytest.param(3, 3, 20, 4, id="steady-load-keeps-what-it-needs"),
        pytest.param(3, 0.2, 1, 4, id="little-waits-because-there-are-enough"),
        pytest.param(1, 41, 20, 6, id="burst"),
        pytest.param(0, 400, 2, 2, id="no-more-for-the-backlog-than-jobs"),
        pytest.param(0.05, 0, 0, 1, id="just-idle"),
        pytest.param(2.25, 0, 9, 3, id="whole-number-that-is-not-rounded-up"),
        pytest.param(0.75, 10.75, 9, 2, id="one-for-each-wait-of-backlog"),
        pytest.param(0.75, 10.85, 9, 3, id="one-more-beyond-it"),
    ],
)
def test_desired_replicas(busy, work, jobs, wanted):
    assert desired_replicas(Demand(busy, work, jobs), RULES) == wanted


@given(st.floats(0, 50), st.floats(0, 1000), st.integers(0, 100), st.floats(0.1, 100))
def test_more_work_never_needs_fewer_replicas(busy, work, jobs, more):
    before = desired_replicas(Demand(busy, work, jobs), RULES)
    assert desired_replicas(Demand(busy, work + more, jobs), RULES) >= before
