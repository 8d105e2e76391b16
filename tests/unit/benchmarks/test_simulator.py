"""The simulator agrees with theory where there is one, and loses nothing."""

import numpy as np
import pytest

from benchmarks.simulator.cluster import Cluster
from benchmarks.simulator.devices import FAMILIES, Device, row_cap
from benchmarks.simulator.routers import Hash, LeastLoaded, Placement
from benchmarks.simulator.traffic import RUNS, Call, Models, Traffic
from serve_app.config import EngineConfig

ALONE = EngineConfig(max_live=1, max_rows=2)
SMALL = Device(budget_bytes=8_000_000_000)  # three small models, or one large


def simulate(calls, models, *, num_gpus=1, router=None, config=None, **options):
    cluster = Cluster(num_gpus, models, SMALL, config or EngineConfig(), **options)
    return cluster, cluster.run(router or Hash(), calls, length_s=1e5, skip_s=0)


@pytest.mark.slow
def test_waits_of_one_server_follow_pollaczek_and_khinchine():
    models = Models(1, 0.0, 0.0, seed=1)
    service_s = np.array(list(RUNS)) * 0.011 + 0.006  # steps of 11 ms, and the VAE
    shares = np.array(list(RUNS.values()))
    load = 0.7
    traffic = Traffic(rate=load / (shares @ service_s))
    _, outcome = simulate(traffic.calls(models, 4_000, 1), models, config=ALONE)
    expected_s = traffic.rate * (shares @ service_s**2) / 2 / (1 - load)
    assert np.mean(outcome.waits_s[20:]) == pytest.approx(expected_s, rel=0.15)


@pytest.mark.slow
def test_batching_takes_a_load_that_one_by_one_cannot():
    models = Models(1, 0.0, 0.0, seed=1)
    calls = list(Traffic(rate=4.5).calls(models, 300, 1))  # 1.65 times what one at a time can do
    _, alone = simulate(calls, models, config=ALONE)
    _, woven = simulate(calls, models)
    assert woven.wait_percentile(0.9) < 0.1 * alone.wait_percentile(0.9)


@pytest.mark.parametrize("router", [Hash(), LeastLoaded(1)], ids=["hash", "least-loaded"])
def test_every_call_is_served_although_the_models_do_not_fit(router):
    models = Models(12, 0.3, 0.4, seed=3)
    calls = list(Traffic(rate=2).calls(models, 200, 1))
    cluster, outcome = simulate(calls, models, num_gpus=2, router=router)
    assert len(outcome.latencies_s) == len(calls)
    assert all(gpu.used_bytes <= SMALL.budget_bytes for gpu in cluster.gpus)
    assert outcome.loads > 12


def test_model_asked_for_all_the_time_does_not_keep_the_others_out():
    models = Models(4, 0.05, 1.0, seed=1)  # the device holds one
    busy = [Call(0.6 * n, 0, 20) for n in range(300)]  # of 0.58 s each
    other = Call(20.0, 1, 20)
    _, outcome = simulate(sorted([*busy, other], key=lambda call: call.at_s), models)
    assert outcome.waits_s[outcome.arrived_s.index(other.at_s)] < 30


def test_waits_end_with_the_first_step():
    """The second call of an XL model is started at once, but has no step before the first ended."""
    models = Models(1, 0.0, 1.0, seed=1)
    xl = FAMILIES[1]
    calls = [Call(0.0, 0, 20), Call(0.0, 0, 20)]
    cluster = Cluster(1, models, Device(), EngineConfig(), quantum=1)
    cluster.gpus[0].hold(0, xl)
    outcome = cluster.run(Hash(), calls, length_s=1e5, skip_s=0)
    assert sorted(outcome.waits_s) == pytest.approx([0, 20 * xl.forward_s(2) + xl.decode_s])


def test_longer_forwards_change_the_result_little():
    models = Models(40, 0.6, 0.3, seed=2)
    calls = list(Traffic(rate=6).calls(models, 120, 1))
    found = [simulate(calls, models, num_gpus=4, quantum=q)[1] for q in (1, 5)]
    means = [np.mean(outcome.latencies_s) for outcome in found]
    assert means[1] == pytest.approx(means[0], rel=0.1)


def test_placement_serves_what_a_hash_of_the_model_cannot():
    models = Models(60, 0.65, 0.3, seed=2)
    rate = 0.6 * 8 / models.mean_work_s()
    calls = list(Traffic(rate).calls(models, 120, 1))
    waits = []
    for make in (lambda gpus: Placement(models, rate, gpus, cell=8, load=0.7, seed=1), Hash):
        cluster = Cluster(8, models, Device(), EngineConfig())
        router = make(cluster.gpus) if make is not Hash else Hash()
        waits.append(cluster.run(router, calls, 120, 40).wait_percentile(0.95))
    assert waits[0] < 0.2 * waits[1]


def test_rate_swings_over_the_day():
    models = Models(2, 0.2, 0.0, seed=1)
    calls = [call.at_s for call in Traffic(10, 0.8, 100).calls(models, 100, 1)]
    at_noon = sum(25 <= at_s < 75 for at_s in calls)
    assert at_noon > 2 * (len(calls) - at_noon)


def test_row_cap_is_where_the_engine_would_find_it():
    assert row_cap(FAMILIES[0], 64, 1.5) == 8  # 16 rows would take 32 ms in place of 16
    assert row_cap(FAMILIES[1], 64, 1.5) == 2
