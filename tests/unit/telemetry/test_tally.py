"""Errors are counted by code, call and key, within bounds."""

from serve_app import errors
from serve_app.config import LoggingConfig
from serve_app.telemetry import logging, tally
from serve_app.telemetry.tally import NO_CALL, NO_PATH, NOBODY, Tally


def test_every_code_is_there_from_the_start():
    counts = Tally().errors
    codes = {one.code for one in vars(errors).values() if hasattr(one, "code")}
    assert {code for code, _, _ in counts} == codes | {NO_CALL}
    assert set(counts.values()) == {0}


def test_errors_are_told_apart_by_code_call_and_key():
    counted = Tally()
    for _ in range(2):
        counted.add("internal", "/a", "key_1")
    counted.add("internal", "/b", "key_1")
    counted.add("internal", "/a")
    seen = {series: number for series, number in counted.errors.items() if number}
    assert seen == {
        ("internal", "/a", "key_1"): 2,
        ("internal", "/b", "key_1"): 1,
        ("internal", "/a", NOBODY): 1,
    }


def test_keys_beyond_the_limit_are_counted_together():
    counted = Tally(max_keys=2)
    for name in ("key_1", "key_2", "key_3", "key_4", "key_2", NOBODY):
        counted.add("internal", "/a", name)
    seen = {key: number for (_, call, key), number in counted.errors.items() if call != NO_PATH}
    assert seen == {"key_1": 1, "key_2": 2, "other": 2, NOBODY: 1}


def test_limit_is_a_setting(monkeypatch):
    monkeypatch.setattr(tally.ERRORS, "max_keys", 100)
    logging.configure(LoggingConfig(error_keys=7))
    assert tally.ERRORS.max_keys == 7
