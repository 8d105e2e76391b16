"""Each picture is encoded once, whoever asks for it."""

import pytest
import torch

from serve_app.pipelines.encode_cache import EncodeCache


class Encoder:
    """Halves each side; counts the rows."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, arguments: dict[str, object]) -> torch.Tensor:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        self.rows += len(sample)
        return sample[..., ::2, ::2] * 3


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def pictures(*seeds: int, side: int = 8, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = [torch.randn(3, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(made).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encode_equal_rows_run_once_and_all_get_theirs(
    encoder: Encoder, dtype: torch.dtype
) -> None:
    cache = EncodeCache(encoder, 8)
    batch = pictures(1, 2, 1, 1, dtype=dtype).to(memory_format=torch.channels_last)
    assert torch.equal(cache({"sample": batch}), batch[..., ::2, ::2] * 3)
    assert encoder.rows == 2
    again = pictures(3, 2, dtype=dtype)
    assert torch.equal(cache({"sample": again}), again[..., ::2, ::2] * 3)
    assert encoder.rows == 3


def test_encode_latest_pictures_are_kept(encoder: Encoder) -> None:
    cache = EncodeCache(encoder, 2)
    for seed in (1, 2, 1, 3, 1):
        cache({"sample": pictures(seed)})
    assert encoder.rows == 3
    cache({"sample": pictures(2)})
    assert encoder.rows == 4


def test_encode_batch_larger_than_the_cache(encoder: Encoder) -> None:
    batch = pictures(1, 2, 3)
    assert torch.equal(EncodeCache(encoder, 1)({"sample": batch}), batch[..., ::2, ::2] * 3)


def test_encode_same_bytes_in_another_shape_are_another_picture(encoder: Encoder) -> None:
    cache = EncodeCache(encoder, 8)
    shapes = [cache({"sample": torch.zeros(1, 3, *size)}).shape for size in ((4, 16), (16, 4))]
    assert shapes == [(1, 3, 2, 8), (1, 3, 8, 2)]
