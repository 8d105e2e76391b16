"""Long strings leave a JSON text, and nothing else changes."""

import json
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app import errors
from serve_app.api.requests import lift

_texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.text('\\"/\u00e9ab', max_size=30)
_objects = st.dictionaries(
    _texts,
    st.recursive(_texts | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=4)),
    max_size=5,
)


def put_back(value, lifted):
    """Read what was lifted with the JSON parser, which is what it would have read."""
    if isinstance(value, str) and value in lifted:
        return json.loads(b'"%b"' % lifted[value].view)
    if isinstance(value, list):
        return [put_back(item, lifted) for item in value]
    return value


@pytest.mark.slow
@settings(max_examples=300)
@given(_objects, st.booleans())
@example({"a": '\\"' * 20}, False)
@example({'\\"' * 20: "\\" * 31}, True)
def test_lifted_text_means_the_same(value, ascii_only):
    data = bytearray(json.dumps(value, ensure_ascii=ascii_only).encode())
    with mock.patch.multiple(lift, LONG_BYTES=8, _BUNCH=2):
        left, lifted = lift.lift(data + b" " * 4096, 4096 + len(data))
    fields = json.loads(left)
    names = {put_back(name, lifted): put_back(item, lifted) for name, item in fields.items()}
    assert names == value
    assert all(len(item.view) > 8 for item in lifted.values())


@pytest.mark.parametrize("run", [0, 1, 2, 3, 1023, 1024, 1025, 4096, 4097])
def test_backslashes_before_a_quote_are_counted(run):
    data = bytearray(b'{"a":"' + b"\\" * run + b'"' + b"x" * 200_000 + b'"}')
    if run % 2:
        (picture,) = lift.lift(data, 10_000)[1].values()
        assert bytes(picture.view) == bytes(data[6:-2])
    else:  # the string ends there, and the next one has no end
        with pytest.raises(errors.InvalidJson):
            lift.lift(data, 10_000)


def test_names_cannot_be_guessed():
    data = bytearray(b'{"a":"' + b"x" * 200_000 + b'"}')
    assert set(lift.lift(data, 1024)[1]).isdisjoint(lift.lift(data, 1024)[1])
