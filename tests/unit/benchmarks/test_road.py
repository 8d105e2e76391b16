"""What the benchmark of a job's road counts, and the number of statements that a job may cost."""

from collections import Counter

import pytest

from benchmarks.road import kinds, statements


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        ("run (asyncio/base_events.py:1);get (serve_app/database/jobs.py:2)", "SQL"),
        ("get (serve_app/database/jobs.py:2);execute (site/sqlalchemy/engine.py:9)", "SQL"),
        ("call (serve_app/api/app.py:1);write (site/structlog/_output.py:4)", "logging"),
        ("send (uvicorn/protocols/http.py:1)", "HTTP"),
        ("assign (ray/serve/_private/router.py:1)", "Ray handle calls"),
        ("select (selectors.py:468)", "event loop and rest"),
    ],
)
def test_innermost_known_frame_names_the_work(stack, kind):
    assert kinds.kind_of(stack) == kind


def test_shares_add_up_and_the_largest_comes_first():
    found = kinds.shares(Counter({"a (x.py:1)": 1, "b (site/sqlalchemy/c.py:1)": 3}))
    assert list(found.items()) == [("SQL", 0.75), ("event loop and rest", 0.25)]


def test_job_costs_no_more_statements_than_the_page_says():
    counted = statements.count(None)
    numbers = {part: (len(sql), sql.count("COMMIT")) for part, sql in counted.items()}
    assert numbers == {
        "accept, with a key": (11, 1),
        "settle": (6, 1),
        "fetch": (1, 0),
        "webhook": (10, 2),
    }
