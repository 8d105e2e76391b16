"""Which replica gets a request."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.models.placement import PlacementRules, ReplicaView, rank, rank_by_add_ons

RULES = PlacementRules(spread_calls=4, max_calls=8)


def view(replica_id, ongoing=0, calls=0, **facts):
    return ReplicaView(replica_id, ongoing, max_ongoing=16, calls={"m": calls}, **facts)


@pytest.mark.parametrize(
    ("replicas", "wanted"),
    [
        pytest.param(
            [view("idle"), view("loads", loading=["m"]), view("holds", ongoing=9, held=["m"])],
            ["holds", "loads", "idle"],
            id="holder-then-loader-then-idle",
        ),
        pytest.param(
            [view("holds", calls=4, held=["m"]), view("idle")],
            ["idle", "holds"],
            id="busy-holder-spreads",
        ),
        pytest.param(
            [view("loads", calls=4, loading=["m"]), view("idle")],
            ["idle", "loads"],
            id="busy-loader-spreads",
        ),
        pytest.param(
            [view("more", calls=3, held=["m"]), view("fewer", calls=2, held=["m"])],
            ["fewer", "more"],
            id="holder-with-fewer-calls",
        ),
        pytest.param(
            [view("two", calls=5, held=["m"]), view("full", ongoing=16)],
            ["two", "full"],
            id="busy-holder-before-full-replica",
        ),
        pytest.param(
            [view("refuses", calls=8, held=["m"]), view("holds", calls=7, held=["m"])],
            ["holds", "refuses"],
            id="holder-that-refuses-is-last",
        ),
        pytest.param(
            [view("loads-other", loading=["x"]), view("calls", ongoing=3)],
            ["calls", "loads-other"],
            id="cold-model-to-fewest-loads",
        ),
        pytest.param(
            [view("more", ongoing=3), view("fewer", ongoing=2, used=0.9)],
            ["fewer", "more"],
            id="cold-model-to-fewest-calls",
        ),
        pytest.param(
            [view("filled", used=0.9), view("empty", used=0.1)],
            ["empty", "filled"],
            id="cold-model-to-most-room",
        ),
        pytest.param(
            [view("more", ongoing=3, held=["m"]), view("fewer", ongoing=2, used=0.9, held=["m"])],
            ["fewer", "more"],
            id="holders-with-as-many-calls-by-all-calls",
        ),
        pytest.param(
            [view("filled", used=0.9, loading=["m"]), view("empty", used=0.1, loading=["m"])],
            ["empty", "filled"],
            id="loaders-by-room",
        ),
        pytest.param(
            [view("loads-two", loading=["x", "y"]), view("one", ongoing=9, loading=["x"])],
            ["one", "loads-two"],
            id="loads-before-calls",
        ),
        pytest.param(
            [view("both", calls=3, held=["m"], loading=["m"]), view("loads", loading=["m"])],
            ["both", "loads"],
            id="held-counts-before-loading",
        ),
        pytest.param(
            [view("busier", ongoing=17), view("full", ongoing=16, used=0.9)],
            ["full", "busier"],
            id="full-ones-by-calls",
        ),
        pytest.param(
            [view("seven", calls=7, ongoing=15), view("sixteen", ongoing=16)],
            ["seven", "sixteen"],
            id="one-place-left",
        ),
    ],
)
def test_rank(replicas, wanted):
    assert rank("m", replicas, RULES) == wanted
    assert rank("m", replicas[::-1], RULES) == wanted


def test_cold_models_spread_evenly_over_idle_replicas():
    replicas = [view(name) for name in "abcd"]
    firsts = Counter(rank(f"model-{number}", replicas, RULES)[0] for number in range(400))
    assert set(firsts) == set("abcd")
    assert max(firsts.values()) < 2 * min(firsts.values())


def test_callers_agree_on_one_of_equal_replicas():
    """In whatever order they know them, and not on the same one for all models."""
    for calls in (0, 5, 9):
        views = [view(f"r{number}", calls=calls) for number in range(5)]
        assert rank("m", views, RULES) == rank("m", views[::-1], RULES)
    holding = [view(f"r{number}", held=["m"]) for number in range(5)]
    assert rank("m", holding, RULES) == rank("m", holding[::-1], RULES)
    ids = [f"m{number}" for number in range(50)]
    for facts in ({"ongoing": 0}, {"ongoing": 16}, {"ongoing": 0, "held": ids}):
        equal = [ReplicaView(f"r{number}", max_ongoing=16, **facts) for number in range(5)]
        assert len({rank(one, equal, RULES)[0] for one in ids}) == 5


def test_model_that_nobody_calls_has_no_calls_anywhere():
    rules = PlacementRules(spread_calls=1, max_calls=1)
    for holds in "abcdef":
        views = [
            ReplicaView(name, 0, max_ongoing=1, held=["m"] if name == holds else [])
            for name in "abcdef"
        ]
        assert rank("m", views, rules)[0] == holds


VIEWS = st.lists(
    st.builds(
        ReplicaView,
        replica_id=st.uuids().map(str),
        ongoing=st.integers(0, 20),
        max_ongoing=st.just(16),
        calls=st.dictionaries(st.sampled_from("mno"), st.integers(0, 10)),
        held=st.frozensets(st.sampled_from("mno")),
        loading=st.frozensets(st.sampled_from("mno")),
        used=st.floats(0, 1),
    ),
    max_size=6,
    unique_by=lambda replica: replica.replica_id,
)


@given(VIEWS)
def test_every_replica_is_ranked_and_full_ones_last(replicas):
    ranked = rank("m", replicas, RULES)
    assert sorted(ranked) == sorted(replica.replica_id for replica in replicas)
    known = {replica.replica_id: replica for replica in replicas}
    is_full = [known[name].ongoing >= 16 or known[name].calls.get("m", 0) >= 8 for name in ranked]
    assert is_full == sorted(is_full)


def replicas(**ongoing):
    return [ReplicaView(name, calls, max_ongoing=8) for name, calls in ongoing.items()]


def home(add_on, **ongoing):
    return rank_by_add_ons([add_on], replicas(**ongoing), 4)[0]


def test_calls_that_name_an_add_on_go_where_the_others_went():
    """Whatever else the caller knows, within the slack, and in whatever order."""
    for add_on in ("ink", "gold", "sun"):
        first = home(add_on, a=0, b=0, c=0)
        rest = dict.fromkeys("abc", 0)
        assert home(add_on, **rest | {first: 4}) == first
        assert home(add_on, c=0, b=0, a=0) == first
        assert home(add_on, **rest | {first: 5}) != first
        assert rank_by_add_ons([add_on], replicas(**rest | {first: 8}), 99)[-1] == first


def test_add_ons_are_spread_over_the_replicas():
    homes = Counter(home(f"lora{number}", a=0, b=0, c=0) for number in range(300))
    assert min(homes.values()) > 60


def test_two_add_ons_go_to_the_home_of_one():
    for number in range(50):
        pair = [f"lora{number}", f"style{number}"]
        wanted = {home(name, a=0, b=0, c=0) for name in pair}
        assert rank_by_add_ons(pair, replicas(a=0, b=0, c=0), 4)[0] in wanted


def test_home_of_most_of_the_add_ons_comes_first():
    homes = {name: home(name, a=0, b=0, c=0) for name in map("lora{}".format, range(30))}
    for chosen in "abc":
        two, other = (
            [name for name in homes if homes[name] == chosen][:2],
            next(name for name in homes if homes[name] != chosen),
        )
        assert rank_by_add_ons([other, *two], replicas(a=0, b=0, c=0), 4)[0] == chosen
        assert rank_by_add_ons([other, *two], replicas(a=0, b=0, c=0), 4)[1] == homes[other]


def test_calls_of_no_add_on_are_spread_where_all_are_as_busy():
    assert rank_by_add_ons([], replicas(a=1, b=1), 4) == rank_by_add_ons([], replicas(b=1, a=1), 4)


def test_calls_without_add_ons_go_to_the_least_busy():
    assert rank_by_add_ons([], replicas(a=3, b=1, c=2), 4) == ["b", "c", "a"]
    assert rank_by_add_ons(["ink"], [], 4) == []


def test_replica_that_goes_moves_its_own_add_ons_alone():
    for number in range(50):
        before = home(f"lora{number}", a=0, b=0, c=0)
        after = home(f"lora{number}", a=0, b=0)
        assert before in (after, "c")
