"""Windows over wide latents: each place gets the mean of what its windows predict."""

import pytest
import torch

from serve_app.pipelines.panorama import windowed
from serve_app.pipelines.specs import window_starts

SHARED = frozenset({"return_dict"})


class Denoiser:
    """Predicts by where a place lies in its window: other channels than the sample has."""

    def __init__(self):
        self.calls = []

    def __call__(self, arguments):
        self.calls.append(arguments)
        sample = arguments["sample"]
        across = torch.arange(sample.shape[-1], dtype=torch.float32).expand(sample[:, :1].shape)
        return (torch.cat([sample[:, :1] + across, sample[:, 1:2] * across, sample[:, :1]], 1),)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("size", [(4, 10), (9, 4), (6, 7), (4, 4)], ids=str)
def test_prediction_of_a_place_is_the_mean_of_its_windows(size, at_once, rows):
    sample = torch.randn(rows, 4, *size, generator=torch.Generator().manual_seed(0))
    text = torch.arange(rows)[:, None]
    denoiser = Denoiser()
    run = windowed(denoiser, "sample", SHARED, 4, 0.5, at_once)
    (found,) = run({"sample": sample, "text": text, "return_dict": False})

    total, times = torch.zeros(rows, 3, *size), torch.zeros(size)
    tops, lefts = (window_starts(side, 4, 0.5) for side in size)
    for top in tops:
        for left in lefts:
            for row in range(top, top + 4):
                for column in range(left, left + 4):
                    place, own = sample[:, :, row, column], column - left
                    total[:, 0, row, column] += place[:, 0] + own
                    total[:, 1, row, column] += place[:, 1] * own
                    total[:, 2, row, column] += place[:, 0]
                    times[row, column] += 1
    torch.testing.assert_close(found, total / times)

    count = len(tops) * len(lefts)
    windows = [len(call["sample"]) // rows for call in denoiser.calls]
    assert sum(windows) == count
    assert windows == [at_once] * (count // at_once) + [count % at_once] * bool(count % at_once)
    assert all(call["return_dict"] is False for call in denoiser.calls)
    assert all(
        call["text"].equal(text.repeat(len(call["text"]) // rows, 1)) for call in denoiser.calls
    )
