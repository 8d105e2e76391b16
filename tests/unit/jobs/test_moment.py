"""The mark that a client of a stream sends back."""

import pytest

from serve_app.jobs.moment import Mark


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (Mark(), "0.0.0.0.0"),
        (Mark(run=1, place=2, step=3, preview=4, has_ended=True), "1.2.3.4.1"),
        (Mark(place=999_999_999), "0.999999999.0.0.0"),
    ],
)
def test_mark_is_read_as_it_was_written(mark, text):
    assert str(mark) == text
    assert Mark.parse(text) == mark


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3.4", "1.2.3.4.2", "1.2.3.4.1 ", "-1.2.3.4.1", "1.2.3.4.1.5", "1234567890.0.0.0.0",
     "\u0661.2.3.4.1", "null"],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_mark_counts_as_nothing_seen(text):
    assert Mark.parse(text) == Mark(run=0, place=0, step=0, preview=0, has_ended=False)
