"""Calls name LoRAs as the published traces say, and replicas fetch them as they should."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.lora_mix import LoraMix, services
from benchmarks.popularity import PUBLISHED_GINI, gini, zipf
from benchmarks.simulator.cluster import Clock, Cluster
from benchmarks.simulator.devices import FAMILIES, LORA_SHARE, Device
from benchmarks.simulator.lora_tiers import Found, LoraTiers
from benchmarks.simulator.loras import Deployment
from benchmarks.simulator.routers import AddOns, FirstLora, LeastLoaded
from benchmarks.simulator.traffic import Call, Models, Traffic
from serve_app.config import EngineConfig

SD15, XL = FAMILIES
SERVICES = services()
EVERYTHING = EngineConfig(lora_bytes=10**13, lora_host_bytes=10**13)
NOTHING = EngineConfig(lora_bytes=0, lora_host_bytes=0)
READ_S = Device().seconds_to_read_lora(XL) + Device().seconds_to_copy_lora(XL)
COPY_S = Device().seconds_to_copy_lora(XL)


def tiers_of(num_kept, num_in_memory):
    clock = Clock()
    sizes = {
        "lora_bytes": num_kept * XL.lora_bytes,
        "lora_host_bytes": num_in_memory * XL.lora_bytes,
    }
    return clock, LoraTiers(XL, Device(), EngineConfig(**sizes), clock.at)


def fetch(clock, tiers, *loras):
    """Fetch, let go, and tell where they were and how long it took."""
    began, answers = clock.now_s, []
    release = tiers.fetch(loras, lambda found: answers.append((found, clock.now_s - began)))
    clock.run_all()
    release()
    [answer] = answers
    return answer


def simulate(calls, config, *, router=None, num_gpus=1, takes_turns=False, family=XL):
    models = Models(1, 0.0, float(family is XL), seed=1)
    cluster = Cluster(num_gpus, models, Device(), config, quantum=1)
    for gpu in cluster.gpus:
        gpu.tiers = LoraTiers(family, Device(), config, cluster.clock.at)
        gpu.takes_turns = takes_turns
        gpu.hold(0, family)
    return cluster.run(router or LeastLoaded(1), calls, length_s=1e5, skip_s=0)


# -- traffic --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "shares"), [("A", (0.05, 0.04, 0.91)), ("B", (0.05, 0.76, 0.19))], ids=["A", "B"]
)
def test_calls_name_as_many_loras_as_the_trace(service, shares):
    drawn = SERVICES[service].draw(np.random.default_rng(1), 40_000)
    sizes = Counter(len(loras) for loras in drawn)
    assert [sizes[size] / len(drawn) for size in range(3)] == pytest.approx(shares, abs=0.01)


def test_no_call_names_a_lora_twice():
    few = LoraMix(0.0, 1.0, zipf(3, 0.5))  # many a pair would be of one
    drawn = few.draw(np.random.default_rng(1), 2_000)
    assert all(first != second for first, second in drawn)
    assert set(sum(drawn, ())) == {0, 1, 2}


def test_drawn_loras_have_the_published_popularity():
    use = LoraMix(1.0, 0.0, zipf(200))
    drawn = Counter(lora for (lora,) in use.draw(np.random.default_rng(1), 200_000))
    found = gini([drawn[lora] for lora in range(200)])
    assert found == pytest.approx(PUBLISHED_GINI, abs=0.005)


def test_traffic_without_loras_names_none():
    models = Models(1, 0.0, 1.0, seed=1)
    assert not any(call.loras for call in Traffic(5).calls(models, 100, 1))
    named = Traffic(5, loras=SERVICES["A"]).calls(models, 100, 1)
    assert any(call.loras for call in named)


# -- tiers ----------------------------------------------------------------------------------------


def test_each_tier_takes_its_time():
    clock, tiers = tiers_of(1, 2)
    assert fetch(clock, tiers, 1) == (Found.ON_DISK, pytest.approx(READ_S))
    assert fetch(clock, tiers, 1) == (Found.ON_DEVICE, 0)
    assert fetch(clock, tiers, 2) == (Found.ON_DISK, pytest.approx(READ_S))  # 1 has to go
    assert fetch(clock, tiers, 1) == (Found.IN_CPU_MEMORY, pytest.approx(COPY_S))
    assert fetch(clock, tiers, 3) == (Found.ON_DISK, pytest.approx(READ_S))
    assert fetch(clock, tiers, 2) == (Found.ON_DISK, pytest.approx(READ_S))  # out of both
    assert fetch(clock, tiers) == (Found.ON_DEVICE, 0)


def test_loras_of_one_call_come_side_by_side_and_the_slowest_place_counts():
    clock, tiers = tiers_of(9, 9)
    fetch(clock, tiers, 1)
    assert fetch(clock, tiers, 1, 2, 3) == (Found.ON_DISK, pytest.approx(READ_S))


def test_loras_of_calls_are_read_by_as_many_threads_as_the_setting_says():
    clock, tiers = tiers_of(19, 19)
    ended = []
    for first in (1, 4):
        names = range(first, first + 3)
        tiers.fetch(list(names), lambda _: ended.append(clock.now_s))
    clock.run_all()
    assert EngineConfig().lora_reads == 4
    assert ended == pytest.approx([READ_S, 2 * READ_S])


def test_lora_that_is_being_read_is_not_read_again():
    clock, tiers = tiers_of(9, 9)
    ended = []
    for _ in range(3):
        tiers.fetch([1], lambda found: ended.append((found, clock.now_s)))
    clock.run_all()
    assert ended == [(Found.ON_DISK, pytest.approx(READ_S))] * 3


def test_calls_are_served_by_as_many_threads_as_the_setting_says():
    clock, tiers = tiers_of(19, 19)
    ended, threads = [], EngineConfig().fetch_threads
    for lora in range(threads + 1):
        tiers.fetch([lora], lambda _: ended.append(clock.now_s))
    clock.run_all()
    assert ended == pytest.approx([READ_S] * threads + [2 * READ_S])


def test_loras_of_calls_inside_stay():
    clock, tiers = tiers_of(1, 0)
    release = tiers.fetch([1], lambda _: None)
    clock.run_all()
    fetch(clock, tiers, 2)
    assert fetch(clock, tiers, 1)[0] is Found.ON_DEVICE
    release()
    fetch(clock, tiers, 3)
    assert fetch(clock, tiers, 1)[0] is Found.ON_DISK


# -- deployments ----------------------------------------------------------------------------------


def test_with_room_for_everything_only_first_uses_are_read():
    calls = [Call(2.0 * number, 0, 20, loras=(number % 7,)) for number in range(70)]
    found = simulate(calls, EVERYTHING).found
    assert found == [Found.ON_DISK] * 7 + [Found.ON_DEVICE] * 63


def test_without_room_everything_is_read():
    calls = [Call(2.0 * number, 0, 20, loras=(number % 7,)) for number in range(70)]
    outcome = simulate(calls, NOTHING)
    assert outcome.found == [Found.ON_DISK] * 70
    assert outcome.waits_s == pytest.approx([READ_S] * 70)


def test_calls_without_loras_count_as_no_hit_and_cost_nothing():
    plain = simulate([Call(1.0, 0, 20)], NOTHING)
    with_lora = simulate([Call(1.0, 0, 20, loras=(1,))], NOTHING)
    assert plain.found == []
    assert plain.waits_s == [0]
    steps_s = 20 * XL.forward_s(2)
    assert plain.latencies_s == pytest.approx([steps_s + XL.decode_s])
    painted_s = with_lora.latencies_s[0] - with_lora.waits_s[0]
    assert painted_s == pytest.approx((1 + LORA_SHARE) * steps_s + XL.decode_s)


def test_rows_of_other_loras_share_forwards_unless_they_take_turns():
    calls = [Call(0.0, 0, 20, loras=(number,)) for number in range(4)]  # as many as the cap holds
    shared, turns = (
        simulate(calls, EVERYTHING, family=SD15, takes_turns=takes_turns).busy_s
        for takes_turns in (False, True)
    )
    alone_s = 20 * SD15.forward_s(2)
    # The first one has run two forwards when the others are in; they have two more to run.
    together_s = 2 * SD15.forward_s(2) + 18 * SD15.forward_s(8) + 2 * SD15.forward_s(6)
    assert shared == pytest.approx((1 + LORA_SHARE) * together_s + 4 * SD15.decode_s)
    assert turns == pytest.approx(4 * ((1 + LORA_SHARE) * alone_s + SD15.decode_s))


def test_calls_of_one_set_share_forwards_although_they_take_turns():
    calls = [Call(0.0, 0, 20, loras=pair) for pair in ((1, 2), (2, 1))]
    outcome = simulate(calls, EVERYTHING, family=SD15, takes_turns=True)
    steps_s = 4 * SD15.forward_s(2) + 18 * SD15.forward_s(4)
    assert outcome.busy_s == pytest.approx((1 + LORA_SHARE) * steps_s + 2 * SD15.decode_s)


@pytest.mark.slow
def test_homes_find_more_loras_than_a_route_that_knows_none():
    base = Deployment(4, 0.3, 300).with_memory(8, 8)
    models = Models(1, 0.0, 1.0, seed=1)
    calls = list(Traffic(1.5, loras=SERVICES["B"]).calls(models, 300, 1))
    shares = [
        simulate(calls, base.config, num_gpus=4, router=router).share_found(Found.ON_DEVICE)
        for router in (AddOns(4), FirstLora(1), LeastLoaded(1))
    ]
    assert shares[0] > 1.2 * shares[2]
    assert shares[1] > 1.2 * shares[2]


def test_one_replica_leaves_routes_no_choice():
    base = Deployment(1, 0.3, 200)
    calls = list(Traffic(0.3, loras=SERVICES["A"]).calls(Models(1, 0.0, 1.0, seed=1), 200, 1))
    found = [
        simulate(calls, base.config, router=router).found
        for router in (AddOns(4), FirstLora(1), LeastLoaded(1))
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("slack", [0, 4])
def test_every_call_is_served(slack):
    models = Models(1, 0.0, 1.0, seed=1)
    calls = list(Traffic(2.0, loras=SERVICES["A"]).calls(models, 100, 1))
    outcome = simulate(calls, EngineConfig(), num_gpus=3, router=AddOns(slack))
    assert len(outcome.latencies_s) == len(calls)
    assert len(outcome.found) == sum(bool(call.loras) for call in calls)
