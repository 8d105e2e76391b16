"""The estimate is arithmetic over what was measured."""

import pytest

from serve_app.jobs.eta import EtaModel, plain_work
from tests.builders import spec


def model(work=plain_work):
    return EtaModel(first_eta_s=10, slots=4, work=work)


def test_eta_before_any_measure_is_the_setting():
    assert model().estimate_s(spec(), num_ahead=0) == 10


def test_eta_of_a_size_that_was_measured_is_what_it_took():
    eta = model()
    eta.observe(spec(steps=10), 2.0)
    assert eta.estimate_s(spec(steps=10), num_ahead=0) == pytest.approx(2.0)


def test_eta_of_another_size_lies_between_a_constant_and_one_that_scales():
    eta = model()
    eta.observe(spec(steps=10), 2.0)
    assert 2.0 < eta.estimate_s(spec(steps=30, samples=2), num_ahead=0) < 12.0


def test_eta_follows_a_change():
    eta = model()
    eta.observe(spec(), 1.0)
    for _ in range(30):
        eta.observe(spec(), 3.0)
    assert eta.estimate_s(spec(), num_ahead=0) == pytest.approx(3.0, rel=0.01)


def test_eta_of_a_running_job_shrinks():
    eta = model()
    assert eta.estimate_s(spec(), num_ahead=0, progress=0.75) == pytest.approx(2.5)


@pytest.mark.parametrize(("num_ahead", "expected_s"), [(3, 10), (7, 20), (11, 30)])
def test_eta_counts_only_jobs_that_wait_for_a_place(num_ahead, expected_s):
    assert model().estimate_s(spec(), num_ahead) == expected_s


@pytest.mark.parametrize(
    ("num_mine", "num_open", "expected_s"), [(1, 1, 10), (2, 2, 5), (1, 4, 10), (2, 16, 20)]
)
def test_next_end_is_a_share_of_all_ends(num_mine, num_open, expected_s):
    """Of 16 open jobs 4 run, each for 10 s: an end every 2.5 s, of which each eighth is mine."""
    assert model().next_end_s(num_mine, num_open) == pytest.approx(expected_s)


def test_work_is_counted_in_steps_of_megapixels():
    asked = spec(samples=3, steps=20, height=400, width=2000)
    assert plain_work(asked) == pytest.approx(48.0, rel=1e-9)


def test_average_moves_a_fifth_of_the_way_to_the_newest_run():
    eta = model()
    for seconds in (10.0, 20.0):
        eta.observe(spec(), seconds)
    assert eta.wait_s(7) == pytest.approx(12.0)
    assert eta.next_end_s(1, 4) == pytest.approx(12.0)


def test_enlarging_is_averaged_and_takes_no_less_than_nothing():
    eta = model()
    eta.observe(spec(), 2.0)
    for seconds in (5.0, 8.0):  # 3 s and then 6 s beside the painting
        eta.observe(spec(upscale=2), seconds)
    assert eta.estimate_s(spec(upscale=2), num_ahead=0) == pytest.approx(2.0 + 3.6)
    fast = model()
    fast.observe(spec(), 2.0)
    fast.observe(spec(upscale=2), 0.5)
    assert fast.estimate_s(spec(upscale=2), num_ahead=0) == pytest.approx(2.0)


def test_share_that_is_done_is_taken_off_what_enlarging_takes_too():
    eta = model()
    eta.observe(spec(), 2.0)
    eta.observe(spec(upscale=2), 6.0)
    assert eta.estimate_s(spec(upscale=2), num_ahead=7, progress=0.5) == pytest.approx(
        3.0 + eta.wait_s(7)
    )


def test_eta_of_models_is_separate():
    eta = model()
    eta.observe(spec(model_id="a"), 1.0)
    assert eta.estimate_s(spec(model_id="b"), num_ahead=0) == 10


def test_wait_grows_with_the_open_jobs_and_the_average_run():
    eta = model()
    assert [eta.wait_s(num_open) for num_open in (0, 3, 4, 7)] == [0, 0, 2.5, 10]
    eta.observe(spec(), 2.0)
    assert eta.wait_s(7) == pytest.approx(2.0)


def test_jobs_ahead_count_with_their_own_times():
    eta = model()
    for _ in range(40):
        eta.observe(spec(model_id="small"), 1.0)
    eta.observe(spec(model_id="large"), 50.0)
    for _ in range(40):
        eta.observe(spec(model_id="small"), 1.0)
    asked = spec(model_id="large")
    alone = eta.estimate_s(asked, num_ahead=3)
    assert alone == pytest.approx(50.0)
    assert eta.estimate_s(asked, num_ahead=7) == pytest.approx(alone + 1.0, rel=0.01)


def test_eta_goes_by_the_work_that_is_counted():
    eta = model(work=lambda job: 7.0 if job.panorama else 1.0)
    for _ in range(5):
        eta.observe(spec(), 2.0)
        eta.observe(spec(panorama=True), 14.0)
    assert eta.estimate_s(spec(), num_ahead=0) == pytest.approx(2.0, rel=0.1)
    assert eta.estimate_s(spec(panorama=True), num_ahead=0) == pytest.approx(14.0, rel=0.1)


def test_eta_learns_what_enlarging_takes_beside_the_painting():
    eta = model()
    eta.observe(spec(), 2.0)
    for upscale, seconds in ((2, 5.0), (3, 10.0)):  # a second for each added picture's worth
        eta.observe(spec(upscale=upscale), seconds)
        assert eta.estimate_s(spec(upscale=upscale), num_ahead=0) == pytest.approx(seconds)
    assert eta.estimate_s(spec(), num_ahead=0) == pytest.approx(2.0)
    two = eta.estimate_s(spec(samples=2), num_ahead=0)
    assert eta.estimate_s(spec(upscale=2, samples=2), num_ahead=0) == pytest.approx(two + 6.0)
