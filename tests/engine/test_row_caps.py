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
    assert not caps.halve("denoiser", 64, 1)
