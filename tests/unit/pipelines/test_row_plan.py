"""In which order and parts the rows of a forward run that have LoRAs."""

import pytest
import torch

from serve_app.pipelines.addons.lora_plan import RowPlan


def ran(numbers, most, widths=None):
    """Run rows whose value is their place; return the sets of each part and the rows in it."""
    plan = RowPlan(
        numbers, (widths or {}).get if widths else lambda _: 0, lambda sets: len(set(sets)) <= most
    )
    parts = []

    def run(groups, arguments):
        parts.append((groups, arguments["x"].flatten().tolist()))
        assert arguments["shared"] == "all"
        return (arguments["x"] * 10,)

    x = torch.arange(len(numbers))[:, None]
    (made,) = plan.run(run, {"x": x, "shared": "all"}, {"shared"})
    assert made.equal(10 * x), "all rows are where they stood"
    return parts


@pytest.mark.parametrize(
    ("numbers", "most", "parts"),
    [
        ([0, 0], 1, [([0], [0, 1])]),
        ([2, 1, 2, 1], 2, [([1, 2], [1, 3, 0, 2])]),
        ([2, 1, 2], 2, [([1, 2, 2], [1, 0, 2])]),
        ([2, 1, 2, 1], 1, [([1], [1, 3]), ([2], [0, 2])]),
        ([3, 2, 1, 2, 1], 2, [([1, 2], [2, 4, 1, 3]), ([3], [0])]),
        ([1, 2, 3, 4, 5], 2, [([1, 2], [0, 1]), ([3, 4], [2, 3]), ([5], [4])]),
        ([1, 0, 2], 2, [([0], [1]), ([1, 2], [0, 2])]),
    ],
    ids=["plain", "together", "uneven", "apart", "some-apart", "pairs", "plain-rows-stay-alone"],
)
def test_rows_of_a_set_are_together_in_as_few_parts_as_have_room(numbers, most, parts):
    assert ran(numbers, most) == parts


def test_sets_that_change_much_come_last():
    assert ran([1, 2, 1], 2, {1: 9, 2: 3}) == [([2, 1, 1], [1, 0, 2])]
