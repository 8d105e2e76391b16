"""Ids made of numbers: a permutation of the range, by a key."""

import pytest

from serve_app.jobs import number
from serve_app.jobs.number import FIRST, MAX_ID, derived, id_of, new_key

KEY = "0f" * 32


def test_every_id_of_a_small_range_is_given_once(monkeypatch):
    """As it is with the true sizes, where nobody can try all of them."""
    monkeypatch.setattr(number, "_ID_BITS", (7, 11))
    ids = [id_of(n, KEY, 50) for n in range(50, 2**11)]
    assert set(ids[:78]) == set(range(50, 2**7))
    assert set(ids[78:]) == set(range(2**7, 2**11))


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [
        (FIRST, FIRST, 2**31),
        (2**31 - 1, FIRST, 2**31),
        (2**31, 2**31, 2**52),
        (2**52 - 1, 2**31, 2**52),
    ],
)
def test_ids_fit_32_bits_while_there_are_any_and_javascript_for_ever(n, low, high):
    assert low <= id_of(n, KEY, FIRST) < high


@pytest.mark.parametrize("first", [64, 100])
def test_range_that_an_older_version_has_half_used_up_is_left(monkeypatch, first):
    monkeypatch.setattr(number, "_ID_BITS", (7, 11))
    ids = [id_of(n, KEY, first) for n in range(first, 2**11)]
    assert set(ids) == set(range(first, 2**11))
    assert max(ids[: 2**7 - first]) >= 2**7


def test_range_of_which_more_than_half_is_left_is_used(monkeypatch):
    monkeypatch.setattr(number, "_ID_BITS", (7, 11))
    assert {id_of(n, KEY, 63) for n in range(63, 2**7)} == set(range(63, 2**7))


@pytest.mark.parametrize(
    ("n", "known"),
    [(FIRST, 2_124_611_260), (FIRST + 1, 217_504_585), (2**31, 1_465_451_696_109_144)],
)
def test_ids_are_those_that_earlier_versions_gave(n, known):
    """Else a new one would come to be that of an old job."""
    assert id_of(n, KEY, FIRST) == known


def test_bounds_and_keys_are_what_databases_hold():
    assert FIRST == 1_000_000
    assert int.from_bytes(b"\x7f" + bytes([255] * 7)) == MAX_ID
    assert len(bytes.fromhex(new_key())) == 32


def test_another_key_makes_other_ids():
    ids = [[id_of(n, key, FIRST) for n in range(FIRST, FIRST + 100)] for key in (KEY, new_key())]
    assert not set(ids[0]) & set(ids[1])


def test_ids_are_spread_evenly():
    """Chi-squared of 16 bins: with 15 degrees of freedom beyond 45 for one key of 13,000."""
    counts = [0] * 16
    for n in range(FIRST, FIRST + 4000):
        counts[id_of(n, KEY, FIRST) >> 27] += 1
    assert sum((count - 250) ** 2 / 250 for count in counts) < 45


def test_derived_key_is_the_hmac_of_its_purpose():
    """RFC 4231, test case 1."""
    told = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    assert derived("0b" * 20, "Hi There").hex() == told
