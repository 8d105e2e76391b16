"""Sizes that nobody asked for: shape, area and limits."""

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.images.fit import fitted
from serve_app.types import Fit


def fit(native_px: int = 512, **changes: int) -> Fit:
    values = {
        "area_px": native_px**2,
        "multiple_px": 8,
        "min_px": 64,
        "max_px": 1024,
        "max_area_px": 1024**2,
    }
    return Fit(**values | changes)


@pytest.mark.parametrize(
    ("rule", "picture", "size"),
    [
        pytest.param(fit(256), (192, 128), (312, 208), id="enlarged"),
        pytest.param(fit(256, multiple_px=16), (192, 128), (336, 224), id="coarse"),
        pytest.param(fit(), (4000, 4000), (512, 512), id="square"),
        pytest.param(fit(), (3000, 4000), (432, 576), id="upright"),
        pytest.param(fit(), (1920, 1080), (680, 384), id="wide"),
        pytest.param(fit(width=640), (1920, 1080), (640, 360), id="width-asked"),
        pytest.param(fit(width=640), (300, 200), (640, 424), id="width-asked-on-any-multiple"),
        pytest.param(fit(height=512), (300, 200), (768, 512), id="height-asked"),
        pytest.param(fit(height=344), (1000, 999), (344, 344), id="height-asked-on-any-multiple"),
        pytest.param(fit(height=1024), (300, 200), (1008, 672), id="asked-gives-way"),
        pytest.param(
            fit(width=768, multiple_px=64, max_area_px=500**2),
            (814, 373),
            (704, 320),
            id="asked-gives-way-to-the-area",
        ),
        pytest.param(fit(1024), (3000, 1000), (1008, 336), id="side-limit"),
        pytest.param(fit(), (8000, 10), (1024, 64), id="strip"),
        pytest.param(fit(), (1, 1), (512, 512), id="one-pixel"),
        pytest.param(fit(width=1024, max_area_px=600**2), (1, 1), (600, 600), id="area-limit"),
    ],
)
def test_fitted_has_the_shape_of_the_picture(
    rule: Fit, picture: tuple[int, int], size: tuple[int, int]
) -> None:
    assert fitted(rule, picture) == size


def test_fitted_without_a_size_has_about_the_native_area() -> None:
    for picture in ((640, 480), (1920, 1080), (736, 736), (1080, 1350), (2000, 1000)):
        for multiple_px in (8, 16):
            width, height = fitted(fit(multiple_px=multiple_px), picture)
            assert 0.9 < width * height / 512**2 < 1.1
            assert abs(math.log(width / height * picture[1] / picture[0])) < 0.01


def test_fitted_is_the_best_of_all_sizes_a_tenth_of_area_being_worth_a_hundredth_of_stretch():
    chosen = random.Random(1)
    for _ in range(60):
        width, height = (chosen.randint(100, 1000) for _ in range(2))
        asked_px = chosen.choice([320, 448, 500])
        rule = fit(asked_px, multiple_px=64, max_px=512, max_area_px=448**2)
        area = min(asked_px**2, 448**2, width * height * (512 / max(width, height)) ** 2)

        def cost(size, shape=width / height, area=area) -> float:
            stretch = abs(math.log(size[0] / size[1] / shape))
            return stretch + 0.1 * abs(math.log(size[0] * size[1] / area))

        sizes = [
            size for size in product(range(64, 513, 64), repeat=2) if math.prod(size) <= 448**2
        ]
        assert cost(fitted(rule, (width, height))) <= min(map(cost, sizes)) + 0.01


@given(
    picture=st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    native_px=st.sampled_from([64, 256, 512, 768, 1024]),
    multiple_px=st.sampled_from([8, 16, 64]),
    asked=st.sampled_from([{}, {"width": 320}, {"height": 1024}]),
    max_area_px=st.sampled_from([256**2, 512**2, 1024**2]),
)
def test_fitted_keeps_every_limit_and_the_shape_up_to_rounding(
    picture: tuple[int, int],
    native_px: int,
    multiple_px: int,
    asked: dict[str, int],
    max_area_px: int,
) -> None:
    rule = fit(native_px, multiple_px=multiple_px, max_area_px=max_area_px, **asked)
    width, height = fitted(rule, picture)
    assert width % multiple_px == height % multiple_px == 0
    assert 64 <= min(width, height) <= max(width, height) <= 1024
    assert width * height <= max_area_px
    if min(width, height) > 64:  # else the shape gave way
        stretch = abs(math.log(width / height * picture[1] / picture[0]))
        short = min(width, height)
        # Shapes half way between two sides, as ratios are.
        between = math.sqrt(short * max(short - multiple_px, multiple_px / 2))
        assert stretch <= math.log(short / between)
