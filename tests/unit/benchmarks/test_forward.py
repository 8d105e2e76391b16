"""The benchmark of forwards, on as little as it takes."""

import torch

from benchmarks.forward import SIZES, build, rows_of


def test_rows_tell_time_and_that_a_shared_row_is_the_row_alone():
    table = [
        row.strip("| ").split(" | ") for row in rows_of("tiny", [1, 3], "cpu", "float32", "off")
    ]
    assert [row[:2] for row in table] == [["tiny", "1"], ["tiny", "3"]]
    assert all(float(row[2]) > 0 for row in table)
    assert all(float(row[4]) < 1e-5 for row in table)


def test_sizes_have_the_parameters_of_the_real_models():
    meta = torch.device("meta")
    counted = {
        name: sum(weight.numel() for weight in build(size, meta, torch.bfloat16).parameters())
        for name, size in SIZES.items()
    }
    assert (counted["sd15"], counted["xl"]) == (859_520_964, 2_567_463_684)
