"""Our metrics as Ray Serve's: Ray exports them with labels of deployment and replica."""

from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge

from serve_app.telemetry.metrics import Kind, Metric

__all__ = ["Instruments"]

_NEXT_TO_NOTHING = 1e-300  # Ray takes no 0; added to anything that is counted it vanishes


class Instruments:
    """One instrument per metric. Totals are reported as they are read; counters get the growth."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._instruments: dict[Metric, Counter | Gauge] = {}
        self._totals: dict[tuple[str, ...], float] = {}
        for metric in metrics:
            make = Counter if metric.kind is Kind.COUNTER else Gauge
            self._instruments[metric] = make(metric.name, metric.meaning, metric.labels)

    def report(self, values: object, labels: Mapping[str, str]) -> None:
        """Read each metric from the attribute of its name and write it."""
        for metric in self._instruments:
            value = getattr(values, _attribute(metric))
            if isinstance(value, Mapping):
                for key, item in value.items():
                    keys = key if isinstance(key, tuple) else (key,)
                    own = zip(metric.labels[-len(keys) :], map(str, keys), strict=True)
                    self._write(metric, item, {**labels, **dict(own)})
            else:
                self._write(metric, value, labels)

    def _write(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        instrument = self._instruments[metric]
        if metric.kind is Kind.GAUGE:
            instrument.set(value, labels)
            return
        series = (metric.name, *labels.values())
        growth = value - self._totals.get(series, 0.0)
        if growth > 0:
            instrument.inc(growth, labels)
        elif series not in self._totals:  # it is there from the start, or its first growth is lost
            instrument.inc(_NEXT_TO_NOTHING, labels)
        self._totals[series] = value


def _attribute(metric: Metric) -> str:
    """`dreamserve_engine_rows_total` is `rows`, unless the metric names its source."""
    return metric.source or metric.name.split("_", 2)[2].removesuffix("_total")
