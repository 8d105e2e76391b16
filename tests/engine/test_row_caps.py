import pytest

from serve_app.engine.row_caps import RowCaps, profile


@pytest.mark.parametrize(
    ("seconds", "cap"),
    [
        pytest.param(lambda rows: 1.0, 16, id="launch-bound"),
        pytest.param(lambda rows: rows, 2, id="compute-bound"),
        pytest.param(lambda rows: max(1.0, rows / 8), 8, id="flat-to-eight"),
    ],
)
def test_profile_stops_where_doubling_costs_too_much(seconds: object, cap: int) -> None:
    assert profile(seconds, max_rows=16, growth=1.5) == cap  # type: ignore[arg-type]


def test_profile_out_of_memory_keeps_last_that_fitted() -> None:
    def seconds(rows: int) -> float:
        if rows > 4:
            raise MemoryError
        return 1.0

    assert profile(seconds, max_rows=16, growth=1.5) == 4


def test_profile_nothing_fits_gives_one_row() -> None:
    def seconds(rows: int) -> float:
        raise MemoryError

    assert profile(seconds, max_rows=16, growth=1.5) == 1


@pytest.mark.parametrize(("fits", "cap"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (8, 8)])
def test_profile_keeps_what_fits(fits: int, cap: int) -> None:
    def seconds(rows: int) -> float:
        if rows > fits:
            raise MemoryError
        return 1.0

    assert profile(seconds, max_rows=16, growth=1.5) == cap


@pytest.mark.parametrize(
    ("max_rows", "tried", "cap"), [(1, [1], 1), (3, [2], 2), (4, [2, 4], 4), (12, [2, 4, 8], 8)]
)
def test_profile_tries_no_more_rows_than_the_setting(
    max_rows: int, tried: list[int], cap: int
) -> None:
    timed: list[int] = []

    def seconds(rows: int) -> float:
        timed.append(rows)
        return 1.0

    assert profile(seconds, max_rows, growth=1.5) == cap
    assert timed == tried


@pytest.mark.parametrize(("growth", "cap"), [(1.5, 8), (1.4, 2)])
def test_profile_goes_on_at_exactly_the_growth_that_doubling_may_cost(
    growth: float, cap: int
) -> None:
    assert profile(lambda rows: {2: 2.0, 4: 3.0, 8: 4.5, 16: 8.0}[rows], 16, growth) == cap


def test_caps_are_at_least_one_row_and_no_more_than_the_setting() -> None:
    caps = RowCaps(16, {("denoiser", 64): 99, ("denoiser", 8): 0})
    assert caps.measured == {("denoiser", 64): 16, ("denoiser", 8): 1}
    assert [caps.has("denoiser", size) for size in (64, 65)] == [True, False]
    assert not caps.has("decoder", 64)
    assert caps.table() == {"denoiser/8": 1, "denoiser/64": 16}
    narrow = RowCaps(1, {("denoiser", 64): 1})
    assert narrow.limit("denoiser", 128) == 1


def test_limit_of_a_size_between_two_is_that_of_the_nearer_else_the_smaller() -> None:
    caps = RowCaps(64, {("denoiser", 100): 8, ("denoiser", 300): 30, ("decoder", 210): 2})
    assert caps.limit("denoiser", 199) == 8 * 100 // 199
    assert caps.limit("denoiser", 200) == 8 * 100 // 200
    assert caps.limit("denoiser", 201) == 30 * 300 // 201


def test_limit_unknown_lane_is_the_setting() -> None:
    assert RowCaps(16).limit("denoiser", 64) == 16


def test_limit_unmeasured_size_scales_the_nearest() -> None:
    caps = RowCaps(16)
    caps.learn("denoiser", 1024, 8)
    assert caps.limit("denoiser", 1024) == 8
    assert caps.limit("denoiser", 2048) == 4
    assert caps.limit("denoiser", 256) == 16
    assert caps.limit("denoiser", 1024**2) == 2


def test_halve_goes_down_to_one_row_then_refuses() -> None:
    caps = RowCaps(16)
    assert [caps.halve("denoiser", 64, rows) for rows in (12, 6, 3, 2)] == [True] * 4
    assert caps.limit("denoiser", 64) == 1
    assert caps.halve("denoiser", 64, 1) is False


def test_halve_goes_by_the_cap_where_more_rows_ran() -> None:
    caps = RowCaps(16)
    caps.learn("denoiser", 64, 8)
    assert caps.halve("denoiser", 64, 12)
    assert caps.limit("denoiser", 64) == 4
