"""Counters are there from the start of a process, so that their first growth is seen."""

from types import SimpleNamespace

import pytest

from deployments import metrics
from serve_app.telemetry.metrics import DATABASE, ERRORS, DatabaseWait, Kind, Metric
from serve_app.telemetry.tally import Tally

COUNT = Metric("dreamserve_engine_failed_total", Kind.COUNTER, "", ("model_id",))
BY_STAGE = Metric("dreamserve_engine_stage_total", Kind.COUNTER, "", ("model_id", "stage"))


class Counter:
    def __init__(self, *_args):
        self.values = {}

    def inc(self, value, labels):
        assert value > 0  # Ray raises
        series = tuple(labels.values())
        self.values[series] = self.values.get(series, 0.0) + value


@pytest.fixture
def counters(monkeypatch):
    made = []
    monkeypatch.setattr(metrics, "Counter", lambda *_: made.append(Counter()) or made[-1])
    return made


def test_counter_is_there_before_it_counts_and_counts_exactly(counters):
    instruments = metrics.Instruments((COUNT,))
    for failed in (0, 0, 3, 3, 7):
        instruments.report(SimpleNamespace(failed=failed), {"model_id": "a"})
    assert counters[0].values == {("a",): 7}
    instruments.report(SimpleNamespace(failed=0), {"model_id": "b"})
    assert counters[0].values["b",] == pytest.approx(0)


def test_counter_by_label_is_there_with_each_value(counters):
    instruments = metrics.Instruments((BY_STAGE,))
    instruments.report(SimpleNamespace(stage={"start": 0.0, "run": 2.0}), {"model_id": "a"})
    assert counters[0].values[("a", "run")] == 2.0
    assert ("a", "start") in counters[0].values


def test_counter_by_several_labels_has_a_series_for_each_of_their_values(counters):
    by_two = Metric("dreamserve_some_errors_total", Kind.COUNTER, "", ("code", "call"), "errors")
    instruments = metrics.Instruments((by_two,))
    for number in (0, 3, 5):
        counts = {("a", "x"): number, ("a", "y"): 1}
        instruments.report(SimpleNamespace(errors=counts), {})
    assert counters[0].values == {("a", "x"): pytest.approx(5), ("a", "y"): 1}


def test_errors_and_waits_are_read_from_where_they_are_counted(counters, monkeypatch):
    levels = {}
    gauge = SimpleNamespace(set=lambda value, labels: levels.update({"wait": (value, labels)}))
    monkeypatch.setattr(metrics, "Gauge", lambda *_: gauge)
    counted = Tally()
    counted.add("internal", "/a", "key_1")
    metrics.Instruments(ERRORS).report(counted, {})
    assert counters[0].values["internal", "/a", "key_1"] == 1
    metrics.Instruments(DATABASE).report(DatabaseWait(0.5), {})
    assert levels == {"wait": (0.5, {})}
