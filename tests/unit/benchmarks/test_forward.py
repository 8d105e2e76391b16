"""The benchmark of forwards, on as little as it takes."""

import torch

from benchmarks.forward import SIZES, build, sweep


def test_sweep_tells_time_and_that_a_shared_row_is_the_row_alone():
    size = SIZES["tiny"]
    unet = build(size, torch.device("cpu"), torch.float32)
    table = list(sweep(size, unet, [1, 3], ["off"]))
    assert [timed.rows for timed in table] == [1, 3]
    assert all(timed.seconds["off"] > 0 for timed in table)
    assert all(timed.apart < 1e-5 for timed in table)


def test_sizes_have_the_parameters_of_the_real_models():
    meta = torch.device("meta")
    counted = {
        name: sum(weight.numel() for weight in build(size, meta, torch.bfloat16).parameters())
        for name, size in SIZES.items()
    }
    assert (counted["sd15"], counted["xl"]) == (859_520_964, 2_567_463_684)
