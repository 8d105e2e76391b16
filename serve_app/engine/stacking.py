"""Turns the arguments of several calls into those of one, and its output into theirs.

Arguments are tensors with rows in their first dimension, numbers, None, and dicts, lists or tuples
of these. Shapes are written (B, ...) with B the number of rows.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch

__all__ = [
    "Arguments",
    "filled",
    "join_outputs",
    "map_tensors",
    "signature",
    "slice_rows",
    "split",
    "stack",
]

Arguments = Mapping[str, object]


def signature(
    arguments: Arguments, shared: frozenset[str], optional: frozenset[str] = frozenset()
) -> Hashable:
    """Return a signature; calls with equal ones can be stacked.

    shared: names of arguments without rows; all of their shape counts.
    optional: names that do not count, since `filled` gives them to all.
    """
    return tuple(
        (name, _describe(value, first_dim=0 if name in shared else 1))
        for name, value in sorted(arguments.items())
        if name not in optional
    )


def filled(
    calls: Sequence[tuple[Arguments, int]], optional: frozenset[str]
) -> list[tuple[Arguments, int]]:
    """Add to calls the optional arguments that others of them have, as zeros.

    What no call has stays away from all.
    """
    given = {
        name: arguments[name] for arguments, _ in calls for name in optional & arguments.keys()
    }
    if not given:
        return list(calls)
    zeros = {name: map_tensors(value, _zero_row) for name, value in given.items()}
    return [(zeros | dict(arguments), rows) for arguments, rows in calls]


def _zero_row(like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros(1, *like.shape[1:])


def _describe(value: object, first_dim: int) -> Hashable:
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype) if value.is_floating_point() else "integer"
        return ("tensor", kind, tuple(value.shape[first_dim:]) if value.dim() else "scalar")
    if isinstance(value, Mapping):
        return tuple((name, _describe(item, first_dim)) for name, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(_describe(item, first_dim) for item in value)
    return repr(value)


def stack(
    calls: Sequence[tuple[Arguments, int]], shared: frozenset[str], pad_to: int = 0
) -> dict[str, object]:
    """Concatenate the arguments of calls with equal signatures along the rows.

    calls: arguments with their row count.
    shared: names whose value is the first call's.
    pad_to: rows to fill up to with copies of the last one.
    """
    first, _ = calls[0]
    rows = [count for _, count in calls]
    padding = max(0, pad_to - sum(rows))
    return {
        name: value
        if name in shared
        else _join([arguments[name] for arguments, _ in calls], rows, padding)
        for name, value in first.items()
    }


def _join(values: Sequence[object], rows: Sequence[int], padding: int) -> object:
    first = values[0]
    if isinstance(first, torch.Tensor):
        parts = [_with_rows(value, count) for value, count in zip(values, rows, strict=True)]
        if padding:
            parts.append(parts[-1][-1:].expand(padding, *parts[-1].shape[1:]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]
    if isinstance(first, Mapping):
        dicts = [value for value in values if isinstance(value, Mapping)]
        return {name: _join([item[name] for item in dicts], rows, padding) for name in first}
    if isinstance(first, list | tuple):
        columns = zip(*(value for value in values if isinstance(value, list | tuple)), strict=True)
        return type(first)(_join(column, rows, padding) for column in columns)
    return first


def _with_rows(value: object, rows: int) -> torch.Tensor:
    assert isinstance(value, torch.Tensor), "equal signatures have tensors in equal places"
    if value.dim() == 0:
        return value.expand(rows)
    if value.shape[0] != rows:
        assert value.shape[0] == 1, "a tensor has one row or as many as its call"
        return value.expand(rows, *value.shape[1:])
    return value


def slice_rows(value: object, start: int, stop: int) -> object:
    """Take some rows of an output, or of stacked arguments."""
    return map_tensors(value, lambda tensor: tensor[start:stop])


def split(output: object, rows: Sequence[int]) -> list[object]:
    """Return each call's rows of the output; rows beyond their sum are padding and dropped."""
    parts: list[object] = []
    start = 0
    for count in rows:
        parts.append(slice_rows(output, start, start + count))
        start += count
    return parts


def join_outputs(outputs: Sequence[object]) -> object:
    """Concatenate outputs of one call that was run in parts."""
    return outputs[0] if len(outputs) == 1 else _join(outputs, [_rows(o) for o in outputs], 0)


def _rows(value: object) -> int:
    while not isinstance(value, torch.Tensor):
        assert isinstance(value, list | tuple), "outputs are tensors or sequences of tensors"
        value = value[0]
    return value.shape[0]


def map_tensors(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    """Change all tensors of an argument or output."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: map_tensors(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change) for item in value)
    return value
