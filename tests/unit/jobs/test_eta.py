"""The estimate is arithmetic over what was measured."""

import pytest

from serve_app.jobs.eta import EtaModel
from tests.builders import spec


def test_eta_before_any_measure_is_the_setting():
    assert EtaModel(first_eta_s=10, slots=4).estimate_s(spec(), num_ahead=0) == 10


def test_eta_scales_with_the_work():
    eta = EtaModel(first_eta_s=10, slots=4)
    eta.observe(spec(steps=10), 2.0)
    assert eta.estimate_s(spec(steps=30, samples=2), num_ahead=0) == pytest.approx(12.0)


def test_eta_follows_a_change():
    eta = EtaModel(first_eta_s=10, slots=4)
    eta.observe(spec(), 1.0)
    for _ in range(30):
        eta.observe(spec(), 3.0)
    assert eta.estimate_s(spec(), num_ahead=0) == pytest.approx(3.0, rel=0.01)


def test_eta_of_a_running_job_shrinks():
    eta = EtaModel(first_eta_s=10, slots=4)
    assert eta.estimate_s(spec(), num_ahead=0, progress=0.75) == pytest.approx(2.5)


@pytest.mark.parametrize(("num_ahead", "expected_s"), [(3, 10), (7, 20), (11, 30)])
def test_eta_counts_only_jobs_that_wait_for_a_place(num_ahead, expected_s):
    assert EtaModel(first_eta_s=10, slots=4).estimate_s(spec(), num_ahead) == expected_s


def test_eta_of_models_is_separate():
    eta = EtaModel(first_eta_s=10, slots=4)
    eta.observe(spec(model_id="a"), 1.0)
    assert eta.estimate_s(spec(model_id="b"), num_ahead=0) == 10


def test_wait_grows_with_the_open_jobs_and_the_average_run():
    eta = EtaModel(first_eta_s=10, slots=4)
    assert [eta.wait_s(num_open) for num_open in (0, 3, 4, 7)] == [0, 0, 2.5, 10]
    for _ in range(60):
        eta.observe(spec(), 2.0)
    assert eta.wait_s(7) == pytest.approx(2.0, rel=0.01)
