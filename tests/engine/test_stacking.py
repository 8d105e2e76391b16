import pytest
import torch

from serve_app.engine.lane import Call, Lane, forward
from serve_app.engine.stacking import (
    filled,
    join_outputs,
    map_tensors,
    signature,
    slice_rows,
    split,
    stack,
)


def arguments(rows: int, **more: object) -> dict[str, object]:
    return {"sample": torch.full((rows, 4, 2, 2), float(rows)), **more}


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        pytest.param(arguments(1), arguments(2), True, id="rows-may-differ"),
        pytest.param(arguments(1, t=torch.ones(1)), arguments(2, t=torch.ones(2)), True, id="t"),
        pytest.param(arguments(1), {"sample": torch.zeros(1, 4, 2, 4)}, False, id="shape-differs"),
        pytest.param(
            arguments(1), {"sample": torch.zeros(1, 4, 2, 2).half()}, False, id="dtype-differs"
        ),
        pytest.param(
            arguments(1, c=None), arguments(1, c=torch.ones(1)), False, id="none-and-tensor"
        ),
        pytest.param(
            arguments(1, c={"ids": torch.ones(1, 6)}),
            arguments(2, c={"ids": torch.ones(2, 6)}),
            True,
            id="nested",
        ),
        pytest.param(
            arguments(1, c={"ids": torch.ones(1, 6)}),
            arguments(1, c={"ids": torch.ones(1, 5)}),
            False,
            id="nested-shape-differs",
        ),
        pytest.param(
            arguments(1, c=[torch.ones(1, 6)]),
            arguments(1, c=[torch.ones(1, 6).half()]),
            False,
            id="listed-dtype-differs",
        ),
    ],
)
def test_signature_says_what_can_be_stacked(
    one: dict[str, object], other: dict[str, object], is_equal: bool
) -> None:
    assert (signature(one, frozenset()) == signature(other, frozenset())) is is_equal


def test_signature_shared_argument_counts_all_of_its_shape() -> None:
    shared = frozenset({"ids"})
    short, long = arguments(1, ids=torch.zeros(4, 3)), arguments(1, ids=torch.zeros(8, 3))
    assert signature(short, shared) != signature(long, shared)
    assert signature(short, frozenset()) == signature(long, frozenset())


def test_stack_joins_rows_and_expands_scalars_and_single_rows() -> None:
    calls = [
        (arguments(2, t=torch.tensor(5.0), e=[torch.zeros(1, 3)], flag=False), 2),
        (arguments(1, t=torch.tensor(7.0), e=[torch.ones(1, 3)], flag=False), 1),
    ]
    stacked = stack(calls, frozenset())
    assert stacked["t"].tolist() == [5.0, 5.0, 7.0]
    assert stacked["e"][0][:, 0].tolist() == [0.0, 0.0, 1.0]
    assert stacked["sample"].shape == (3, 4, 2, 2)
    assert stacked["flag"] is False


def test_split_gives_each_call_its_rows_and_drops_padding() -> None:
    first, second = split((torch.arange(5),), [2, 1])
    assert first[0].tolist() == [0, 1]
    assert second[0].tolist() == [2]


def test_signature_tells_scalars_numbers_and_names_apart_but_not_kinds_of_integers() -> None:
    def of(value: object) -> object:
        return signature({"t": value}, frozenset())

    alone = [
        torch.tensor(5.0),
        torch.ones(1),
        torch.ones(1, 1),
        5,
        6,
        "5",
        None,
        {"a": 5},
        {"b": 5},
    ]
    assert len({of(value) for value in alone}) == len(alone)
    assert of(torch.tensor([5])) == of(torch.tensor([7, 8], dtype=torch.int32))
    assert of(torch.tensor([5])) != of(torch.tensor([5.0]))
    assert of([torch.ones(2, 3)]) == of((torch.ones(1, 3),))


def test_signature_goes_by_name_whatever_the_order() -> None:
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert signature(one, frozenset()) == signature(other, frozenset())
    assert signature(one, frozenset(), frozenset({"b"})) == signature({"a": 1}, frozenset())


@pytest.mark.parametrize(("pad_to", "rows"), [(0, 3), (3, 3), (4, 4), (6, 6)])
def test_stack_fills_up_with_copies_of_the_last_row(pad_to: int, rows: int) -> None:
    ids = torch.arange(2)
    calls = [
        ({"x": torch.tensor([[1.0, 1.0]]), "t": torch.tensor(5), "ids": ids}, 1),
        ({"x": torch.tensor([[2.0, 2.0], [3.0, 3.0]]), "t": torch.tensor(6), "ids": None}, 2),
    ]
    stacked = stack(calls, frozenset({"ids"}), pad_to)
    assert stacked["x"].tolist() == [[n, n] for n in [1.0, 2.0, *[3.0] * (rows - 2)]]
    assert stacked["t"].tolist() == [5, *[6] * (rows - 1)]
    assert stacked["ids"] is ids


def test_stack_of_one_call_copies_nothing_and_keeps_the_kinds_of_lists() -> None:
    sample = torch.ones(2, 3)
    stacked = stack([({"x": sample, "many": (sample, [sample]), "n": 7}, 2)], frozenset())
    assert stacked["x"] is sample
    assert isinstance(stacked["many"], tuple)
    assert isinstance(stacked["many"][1], list)
    assert stacked["n"] == 7


def test_filled_gives_one_row_of_zeros_of_the_same_shape() -> None:
    optional = frozenset({"more", "less"})
    given = {"x": 1, "more": {"a": [torch.ones(2, 3, 4)]}}
    plain, same = filled([({"x": 1}, 1), (given, 2)], optional)
    assert plain[0]["more"]["a"][0].tolist() == torch.zeros(1, 3, 4).tolist()
    assert (set(plain[0]), plain[1]) == ({"x", "more"}, 1)
    assert same[0]["more"] is given["more"]


def test_parts_of_an_output_are_joined_as_they_were() -> None:
    whole = {"sample": torch.arange(10.0).reshape(5, 2)}["sample"]
    parts = [(whole[:2], [whole[:2]]), (whole[2:], [whole[2:]])]
    joined = join_outputs(parts)
    assert torch.equal(joined[0], whole)
    assert torch.equal(joined[1][0], whole)
    assert join_outputs(parts[:1]) is parts[0]
    cut = slice_rows({"a": whole, "b": [whole], "c": (whole, 7)}, 1, 3)
    assert torch.equal(cut["a"], whole[1:3])
    assert torch.equal(cut["b"][0], whole[1:3])
    assert cut["c"][1] == 7
    assert [type(part) for part in (cut, cut["b"], cut["c"])] == [dict, list, tuple]
    assert map_tensors("text", torch.clone) == "text"


class Doubler:
    """A denoiser that doubles its sample and writes down its row counts."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, arguments: dict[str, object]) -> object:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        self.rows.append(sample.shape[0])
        return (sample * 2,)


def test_forward_call_over_the_limit_runs_in_parts() -> None:
    run = Doubler()
    ids = torch.zeros(7, 3)
    lane = Lane("denoiser", run, shared=frozenset({"ids"}))
    sample = torch.arange(5.0).reshape(5, 1, 1, 1)
    for limit, rows in ((2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (9, [5])):
        run.rows.clear()
        (output,) = forward([Call(lane, {"sample": sample, "ids": ids}, 5, 1)], limit)
        assert run.rows == rows
        assert torch.equal(output[0], sample * 2)


class Adder:
    """A denoiser that adds what it was given, and writes down the names of its arguments."""

    def __init__(self) -> None:
        self.names: list[set[str]] = []

    def __call__(self, arguments: dict[str, object]) -> object:
        self.names.append(set(arguments))
        sample, more = arguments["sample"], arguments.get("more")
        assert isinstance(sample, torch.Tensor)
        if more is None:
            return (sample,)
        assert isinstance(more, list)
        return (sample + more[0],)


def test_forward_optional_argument_is_zero_for_calls_without_it() -> None:
    run = Adder()
    lane = Lane("denoiser", run, optional=frozenset({"more"}))
    more = [torch.full((2, 4, 2, 2), 0.5)]
    calls = [Call(lane, arguments(1), 1, 16), Call(lane, arguments(2, more=more), 2, 16)]
    assert calls[0].group(None, None) == calls[1].group(None, None)
    for limit in (3, 1):
        plain, added = forward(calls, limit)
        assert plain[0].unique().tolist() == [1.0]
        assert added[0].unique().tolist() == [2.5]
        assert added[0].shape[0] == 2


def test_forward_optional_argument_that_no_call_has_is_not_passed() -> None:
    run = Adder()
    lane = Lane("denoiser", run, optional=frozenset({"more"}))
    forward([Call(lane, arguments(rows), rows, 16) for rows in (1, 2)], limit=4)
    assert run.names == [{"sample"}]


def test_call_to_measure_runs_the_plain_forward_with_zeros_for_its_marks() -> None:
    def run(stacked: dict[str, object]) -> object:
        return stacked["sample"]

    def plain(stacked: dict[str, object]) -> object:
        return stacked["sample"]

    given = arguments(1, mark=torch.ones(1))
    for other, expected in ((None, run), (plain, plain)):
        lane = Lane("x", run, marks=frozenset({"mark"}), plain=other)
        call = Call(lane, given, 1, 16).unmarked()
        assert call.lane.run is expected
        assert call.arguments["mark"] == 0
        assert call.arguments["sample"] is given["sample"]
        assert Call(lane, {"mark": None}, 1, 16).unmarked().arguments == {"mark": None}
